"""Tokens of an answer → its text, piece by piece, held back while it may change or become a stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auricle.engine.request import Token, TopLogprobs

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Detokenizer:
    """The text of one answer while it is generated."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = ()) -> None:
        """``stop``: strings before the first of which the text ends."""
        from tokenizers.decoders import DecodeStream

        self._tokenizer, self._stop = tokenizer, stop
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        # Of each token what is passed on, and where in the held text its own starts.
        self._held: list[tuple[Token, int]] = []
        self._text = ""  # decoded, not returned yet
        self._given = ""
        self.is_stopped = False

    def add(self, token: int, logprob: float, top: TopLogprobs = ()) -> list[Token]:
        """Take the next token; return those whose text is certain by now."""
        self._ids.append(token)
        piece = self._stream.step(self._tokenizer, token)
        self._held.append((Token(token, logprob, "", top), len(self._text)))
        if piece is None:  # in the middle of a character
            return []
        self._text += piece
        if found := [at for at in (self._text.find(word) for word in self._stop) if at >= 0]:
            self.is_stopped = True
            return self._stop_at(min(found))
        certain = len(self._text) - self._possible_stop()
        ends = [start for _, start in self._held[1:]] + [len(self._text)]
        count = sum(end <= certain for end in ends)
        return self._give(count, ends[count - 1])

    def close(self) -> list[Token]:
        """Return the rest after the last token, with the bytes of an unfinished character."""
        whole = self._tokenizer.decode(self._ids)
        if not self.is_stopped and whole.startswith(self._given):
            self._text = whole[len(self._given) :]
        return self._give(len(self._held), len(self._text))

    def _stop_at(self, cut: int) -> list[Token]:
        """Return the held tokens with text before ``cut``; drop the others."""
        self._text = self._text[:cut]
        self._held = [held for held in self._held if held[1] < cut]
        return self._give(len(self._held), cut)

    def _possible_stop(self) -> int:
        """Length of the longest suffix of the text that is a prefix of a stop string."""
        longest = max((len(word) for word in self._stop), default=1) - 1
        for length in range(min(longest, len(self._text)), 0, -1):
            if any(word.startswith(self._text[-length:]) for word in self._stop):
                return length
        return 0

    def _give(self, count: int, end: int) -> list[Token]:
        """Return the first ``count`` held tokens with the first ``end`` characters."""
        given = self._held[:count]
        if not given:
            return []
        ends = [min(start, end) for _, start in given[1:]] + [end]
        tokens = [
            token._replace(text=self._text[min(start, end) : stop])
            for (token, start), stop in zip(given, ends, strict=True)
        ]
        self._given += self._text[:end]
        self._held = [(token, start - end) for token, start in self._held[count:]]
        self._text = self._text[end:]
        return tokens
