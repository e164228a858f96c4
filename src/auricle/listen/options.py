"""Answers out of a list: the log-probability of every option, and constraints that allow nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from auricle.data.untrusted_json import check_characters
from auricle.engine.json_schema import JsonRules
from auricle.errors import ConfigError
from auricle.listen.outputs import Odds

if TYPE_CHECKING:
    from auricle.engine.request import Constraint
    from auricle.weights import LoadedLM

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Score = Callable[[Sequence[Sequence[int]]], list[list[float]]]


class OptionTrie:
    """Allows nothing but given token sequences, each followed by an end token."""

    def __init__(self, options: Sequence[Sequence[int]], end_ids: Collection[int]) -> None:
        """Build the tree of the options.

        Args:
            options: token ids of each, at least one.
            end_ids: any of them ends an option.
        """
        self._ends = sorted(end_ids)
        self._next: dict[tuple[int, ...], set[int]] = {}
        for option in options:
            for place, token in enumerate(option):
                self._next.setdefault(tuple(option[:place]), set()).add(token)
            self._next.setdefault(tuple(option), set()).update(self._ends)

    def allowed(self, ids: Sequence[int]) -> list[int]:
        """Ids that may follow an answer so far; the end tokens where nothing else is left."""
        return sorted(self._next.get(tuple(ids), self._ends))


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one question, with the token sequences that count as each."""

    texts: tuple[str, ...]
    prompt: str  # the question, with the options where they are lettered
    forms: tuple[tuple[tuple[int, ...], ...], ...]  # of each option its spellings, in tokens with the end token


def write_options(
    tokenizer: Tokenizer, question: str, options: Sequence[str], *, end_id: int, letters: bool = False
) -> Options:
    """Prepare options for scoring.

    Args:
        tokenizer: of the decoder.
        question: without the options.
        options: answers to choose from.
        end_id: token that ends an answer.
        letters: list them in the prompt as ``(A) …``, the form of MMAU and MMLU; then an option's spellings are the
            letter, the letter in brackets, both with the text, and the text.

    Raises:
        ConfigError: fewer than two options, duplicated or empty ones, one with a control token, or more than there are
            letters.
    """
    check_characters(question, "the question")
    if not question.strip():
        raise ConfigError("the question is empty; expected one that the options answer")
    texts = check_options(tokenizer, options)
    if letters and len(texts) > len(LETTERS):
        raise ConfigError(f"there are {len(texts)} options; expected at most {len(LETTERS)} with letters")
    spellings: list[tuple[str, ...]] = [(text,) for text in texts]
    if letters:
        lettered = list(zip(LETTERS, texts, strict=False))
        question = "\n".join([question, *(f"({letter}) {text}" for letter, text in lettered)])
        spellings = [(a, f"({a})", f"({a}) {text}", f"{a}. {text}", text) for a, text in lettered]
    forms = [dict.fromkeys(answer_ids(tokenizer, text, end_id) for text in each) for each in spellings]
    return Options(texts, question, tuple(map(tuple, forms)))


def answer_ids(tokenizer: Tokenizer, text: str, end_id: int) -> tuple[int, ...]:
    """A text as the tokens of a whole answer: with the end token."""
    return (*tokenizer.encode(text, add_special_tokens=False).ids, end_id)


def constraint_of(
    loaded: LoadedLM, choices: Sequence[str] | None, schema: Mapping[str, Any] | None
) -> Callable[[], Constraint] | None:
    """Make the factory of constraints, one for each answer: one of the choices, or JSON of a schema; None: any answer.

    Raises:
        ConfigError: both choices and a schema, or unusable ones.
        MissingExtra: a schema without llguidance.
    """
    ends = loaded.eos_token_ids
    if choices is not None and schema is not None:
        raise ConfigError("both choices and a schema are given; expected one of them, or {'enum': [...]} as schema")
    if choices is not None:
        options = check_options(loaded.tokenizer, choices)
        trie = OptionTrie([answer_ids(loaded.tokenizer, option, min(ends))[:-1] for option in options], ends)
        return lambda: trie
    if schema is not None:
        check_characters(schema, "the schema")
        vocab_size = loaded.model.decoder.config.vocab_size
        return JsonRules(loaded.tokenizer, schema, vocab_size=vocab_size, end_ids=ends).constraint
    return None


def check_options(tokenizer: Tokenizer, options: Sequence[str]) -> tuple[str, ...]:
    """Return options without surrounding white space.

    Raises:
        ConfigError: as `write_options`.
    """
    if isinstance(options, str):
        raise ConfigError(f"the options are one text, {options!r}; expected a list of texts")
    if not hasattr(options, "__iter__"):
        raise ConfigError(f"the options are {options!r}; expected a list of texts")
    options = list(options)
    for option in options:
        check_characters(option, "an option")
    texts = tuple(option.strip() for option in options)
    if len(texts) < 2 or not all(texts) or len(set(texts)) < len(texts):
        raise ConfigError(f"the options are {list(options)}; expected at least two, none empty or duplicated")
    controls = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    for text in texts:
        if any(control in text for control in controls):
            raise ConfigError(f"the option {text!r} contains a control token of the model; use other words")
    return texts


def weigh(options: Options, score: Score) -> tuple[Odds, ...]:
    """Score every option with ``score``, the log-probability of each token of given continuations of the prompt.

    Returns:
        Odds in the order of the options; one with several spellings has the sum of their probabilities and the best of
        their means.
    """
    flat = [form for forms in options.forms for form in forms]
    scores = iter(score(flat))
    totals, means = [], []
    for forms in options.forms:
        own = [next(scores) for _ in forms]
        totals.append(_log_sum([sum(each) for each in own]))
        means.append(max(sum(each) / len(each) for each in own))
    return odds_of(options.texts, totals, means)


def odds_of(texts: Sequence[str], totals: Sequence[float], means: Sequence[float]) -> tuple[Odds, ...]:
    """Probabilities among options from their log-probabilities, whole (nats) and per token."""
    by_total, by_mean = _softmax(totals), _softmax(means)
    return tuple(
        Odds(
            text=text,
            probability=round(by_total[i], 6),
            mean_probability=round(by_mean[i], 6),
            logprob=round(totals[i], 4),
            mean_logprob=round(means[i], 4),
        )
        for i, text in enumerate(texts)
    )


def pool_odds(parts: Sequence[tuple[float, tuple[Odds, ...]]]) -> tuple[Odds, ...]:
    """Odds of a long source: the mean of its windows' log-probabilities over the time.

    Args:
        parts: seconds and odds of each window, at least one.
    """
    whole = sum(seconds for seconds, _ in parts) or 1.0
    count = range(len(parts[0][1]))
    totals = [sum(seconds * odds[i].logprob for seconds, odds in parts) / whole for i in count]
    means = [sum(seconds * odds[i].mean_logprob for seconds, odds in parts) / whole for i in count]
    return odds_of([odds.text for odds in parts[0][1]], totals, means)


def best(odds: Sequence[Odds], *, per_token: bool = False) -> Odds:
    """The option with the highest log-probability; of equals the first."""
    return max(odds, key=lambda each: each.mean_logprob if per_token else each.logprob)


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values)) if most > -math.inf else most


def _softmax(values: Sequence[float]) -> list[float]:
    whole = _log_sum(values)
    return [math.exp(value - whole) if whole > -math.inf else 1 / len(values) for value in values]
