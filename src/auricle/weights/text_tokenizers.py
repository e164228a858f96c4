"""Texts → token ids, as the text towers of GLAP and of sentence-transformers read them.

=========  =========================================================================================================
NLLB       sentencepiece, shifted by one; ``[language] pieces [end]``; read by the package sentencepiece (extra align)
stock      ``tokenizer.json`` of a `transformers` encoder, with that encoder's own special tokens
=========  =========================================================================================================
"""

import difflib
import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from auricle.errors import AuricleError, ConfigError, LayoutMismatch, MissingExtra, WeightsError
from auricle.files import read_regular, write_bytes

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

SPM_FILE = "sentencepiece.source.256000.model"  # its name in NLLB's and GLAP's releases
END = 3  # NLLB: 0 padding, 1 unknown, 2 start, 3 end
MAX_TOKENIZER_BYTES = 2**26  # the largest published ones have half of it
_MAX_GAP = 2**20  # ids without a token
_MAX_GROWTH = 64
_PROBE = "".join(map(chr, range(9, 384))) + "一二三 🙂" + 64 * "a"
_SHIFT = 1  # sentencepiece has no padding and counts from there
_FIRST_LANGUAGE = 256_001  # behind the pieces of the released model, and no place of its own in a smaller one
_SIGNS = 206  # ids that are no piece: 202 languages, padding, 3 markers of data sources


class TextTokenizer(Protocol):
    """What a text tower's tokenizer must offer."""

    languages: tuple[str, ...]  # that can be named; none: the text's language makes no difference
    max_tokens: int  # of a text, special ones included

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file that decides which ids a text gets."""
        ...

    def encode(self, texts: Sequence[str], *, language: str = "eng_Latn") -> list[list[int]]:
        """Ids of each text, special ones included; a text that is too long loses its end, with a warning."""
        ...

    def save(self, folder: Path) -> None:
        """Write the file beside a model's weights."""
        ...


class _TokenizerFile:
    """The file of a tokenizer, read with the first text."""

    saved_as: ClassVar[str]  # name beside a model's weights

    def __init__(self, file: str | Path, max_tokens: int, languages: Sequence[str]) -> None:
        self.file, self.max_tokens, self.languages = Path(file), max_tokens, tuple(languages)

    @cached_property
    def fingerprint(self) -> str:
        """See `TextTokenizer`."""
        return hashlib.sha256(self._content).hexdigest()

    def save(self, folder: Path) -> None:
        """See `TextTokenizer`."""
        write_bytes(folder / self.saved_as, self._content)

    @cached_property
    def _content(self) -> bytes:
        try:
            return read_regular(self.file, MAX_TOKENIZER_BYTES)
        except OSError as error:
            raise WeightsError(f"{self.file}: cannot be read ({error.strerror}); download it again") from error


class NllbTokenizer(_TokenizerFile):
    """NLLB's sentencepiece pieces behind a language tag."""

    saved_as = SPM_FILE

    def __init__(
        self, file: str | Path, *, max_tokens: int = 514, vocab_size: int | None = None, keep_end: bool = True
    ) -> None:
        """Name a sentencepiece model; it is opened with the first text.

        Args:
            file: ``*.model``.
            max_tokens: longest text, tag and end included.
            vocab_size: of the text tower, to be compared with the pieces; None: not compared.
            keep_end: a text that is cut keeps its end token; False: it loses it, as in the released code.
        """
        super().__init__(file, max_tokens, nllb_languages())
        self._vocab_size, self._keep_end = vocab_size, keep_end

    def encode(self, texts: Sequence[str], *, language: str = "eng_Latn") -> list[list[int]]:
        """Ids of each text: language tag, pieces, end.

        Args:
            texts: each in one language.
            language: NLLB's code, ``eng_Latn``; all texts of GLAP's training had this one, whatever their language.

        Raises:
            ConfigError: an unknown language; near ones are listed.
            MissingExtra: the package sentencepiece is not installed.
            WeightsError: the model is absent, damaged or does not belong to the text tower.
        """
        check_language(language, self.languages)
        tag = _FIRST_LANGUAGE + self.languages.index(language)
        pieces = self._processor.encode(list(texts))
        return _cut([[tag, *(p + _SHIFT for p in ids), END] for ids in pieces], self.max_tokens, keep=self._keep_end)

    @cached_property
    def _processor(self) -> "SentencePieceProcessor":
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise MissingExtra("reading texts for this model (sentencepiece)", "align") from None
        processor = SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(self._content)
        except RuntimeError as error:
            raise WeightsError(
                f"{self.file}: is no sentencepiece model, or a damaged one; download it again"
            ) from error
        pieces = processor.get_piece_size()
        # A smaller vocabulary has no room for the language tags: its tower refuses the ids itself.
        if self._vocab_size and self._vocab_size > _FIRST_LANGUAGE and pieces + _SIGNS != self._vocab_size:
            raise LayoutMismatch(
                f"{self.file}: holds {pieces} pieces, expected {self._vocab_size - _SIGNS} for a vocabulary of "
                f"{self._vocab_size}; take the tokenizer from the model's own folder"
            )
        return processor


class StockTokenizer(_TokenizerFile):
    """A ``tokenizer.json``."""

    saved_as = "tokenizer.json"

    def __init__(self, file: str | Path, *, max_tokens: int, languages: Sequence[str] = ()) -> None:
        """Name the file; it is opened with the first text. Its padding and truncation are left out.

        Args:
            file: ``tokenizer.json``.
            max_tokens: longest text, special tokens included.
            languages: that the text tower understands; none: it does not matter.
        """
        super().__init__(file, max_tokens, languages)

    def encode(self, texts: Sequence[str], *, language: str = "eng_Latn") -> list[list[int]]:
        """Ids of each text with the encoder's special tokens.

        Raises:
            ConfigError: a language that the encoder does not understand.
            WeightsError: the tokenizer is absent or damaged.
        """
        if self.languages:
            check_language(language, self.languages)
        with tokenizer_errors(str(self.file)):
            found = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
            longest = [ids for ids in found if len(ids) > self.max_tokens]
            if longest:
                _warn(len(longest), len(found), self.max_tokens)
                self._tokenizer.enable_truncation(self.max_tokens)
                found = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
                self._tokenizer.no_truncation()
        return found

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        return open_tokenizer(self._content, str(self.file))


def open_tokenizer(content: bytes, source: str) -> "Tokenizer":
    """The tokenizer in a ``tokenizer.json``, without its padding and truncation.

    Args:
        content: of the file, which is not trusted.
        source: for messages.

    Raises:
        WeightsError: it is damaged, or would make much more of a text than there is.
    """
    from tokenizers import Tokenizer

    try:
        text = content.decode("utf-8-sig")
        state = json.loads(text)
        if not isinstance(state, dict):
            raise ValueError("no JSON object")
        check_sizes(state, source)
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise WeightsError(f"{source}: is no tokenizer ({error}); download it again") from error
    with tokenizer_errors(source):
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.decode(tokenizer.encode(_PROBE, add_special_tokens=False).ids)
    return tokenizer


@contextmanager
def tokenizer_errors(source: str) -> Iterator[None]:
    """Report what the tokenizers package raises as a fault of the model's files."""
    try:
        yield
    except AuricleError:
        raise
    except BaseException as error:
        # The package raises bare exceptions, and panics that derive from none.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise WeightsError(
            f"{source}: the tokenizer fails ({str(error)[:300]}); download the model's tokenizer.json again"
        ) from error


def check_sizes(state: dict[str, Any], source: str) -> None:
    """Refuse ids far beyond the vocabulary, which the package fills up, and replacements that multiply a text.

    Args:
        state: content of a ``tokenizer.json``.
        source: for messages.

    Raises:
        WeightsError: there are some.
    """
    vocabulary = (state.get("model") or {}).get("vocab") or {}
    added = state.get("added_tokens") or []
    ids = [token["id"] for token in added if isinstance(token, dict) and isinstance(token.get("id"), int)]
    ids += [number for number in vocabulary.values() if isinstance(number, int)] if isinstance(vocabulary, dict) else []
    room = 2 * (len(vocabulary) + len(added)) + _MAX_GAP
    if any(not 0 <= number < room for number in ids):
        raise WeightsError(
            f"{source}: has ids up to {max(ids)} for {len(vocabulary) + len(added)} tokens; download it again"
        )
    if any(isinstance(token, dict) and not token.get("content") for token in added):
        raise WeightsError(f"{source}: an added token is empty; download it again")
    growth = math.prod(max(1, len(text)) for text in _replacements([v for k, v in state.items() if k != "model"]))
    if growth > _MAX_GROWTH:
        raise WeightsError(
            f"{source}: its replacements make texts {growth:,} times as long, expected at most {_MAX_GROWTH} times; "
            "download it again"
        )


def _replacements(part: Any) -> Iterator[str]:
    """What normalizers, pre-tokenizers and decoders put in place of other text."""
    if isinstance(part, dict):
        if part.get("type") in ("Replace", "Prepend", "Metaspace"):
            yield from (part[key] for key in ("content", "prepend", "replacement") if isinstance(part.get(key), str))
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _replacements(inner)


@cache
def nllb_languages() -> tuple[str, ...]:
    """The 202 codes, ``ace_Arab`` … ``zul_Latn``, in the order of their tokens (that of the reference, not sorted)."""
    file = resources.files("auricle.weights") / "nllb_languages.json"
    return tuple(json.loads(file.read_text(encoding="utf-8")))


def check_language(language: str, languages: Sequence[str]) -> None:
    """Refuse a language that is not there.

    Raises:
        ConfigError: listing near matches.
    """
    if language in languages:
        return
    stem = language.lower()[:2]
    near = difflib.get_close_matches(language, languages, n=3, cutoff=0.6)
    near += [code for code in languages if code.startswith(stem) and code not in near][: 6 - len(near)]
    raise ConfigError(
        f"language is {language!r}; did you mean {', '.join(near or languages[:6])}? {len(languages)} of them are "
        "known, by ISO 639-3 code and script"
    )


def _cut(texts: list[list[int]], max_tokens: int, *, keep: bool) -> list[list[int]]:
    """Cut texts behind ``max_tokens``; where ``keep``, the last token stays the last one."""
    too_long = sum(len(ids) > max_tokens for ids in texts)
    if not too_long:
        return texts
    _warn(too_long, len(texts), max_tokens)
    if keep:
        return [ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]] for ids in texts]
    return [ids[:max_tokens] for ids in texts]


def _warn(count: int, total: int, max_tokens: int) -> None:
    warnings.warn(f"{count} of {total} texts are longer than {max_tokens} tokens; the rest is not read", stacklevel=4)
