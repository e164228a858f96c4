"""Answers out of a list: the log-probability of every option, and decoding that can say nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from auricle.errors import ConfigError
from auricle.listen.outputs import Odds

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Score = Callable[[Sequence[Sequence[int]]], list[list[float]]]


class OptionTrie:
    """Allows nothing but given token sequences, each followed by an end token."""

    def __init__(self, options: Sequence[Sequence[int]], end_ids: Collection[int]) -> None:
        """Take the options.

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
    """Options of one question, as a model would say them."""

    texts: tuple[str, ...]
    prompt: str  # the question, with the options where they are lettered
    forms: tuple[tuple[tuple[int, ...], ...], ...]  # of each option the ways to say it, in tokens with the end


def write_options(
    tokenizer: Tokenizer, question: str, options: Sequence[str], *, end_id: int, letters: bool = False
) -> Options:
    """Prepare options for scoring.

    Args:
        tokenizer: of the decoder.
        question: as asked.
        options: answers to choose from.
        end_id: token that ends an answer.
        letters: list them in the prompt as ``(A) …``, the form of MMAU and MMLU; an option then is what a model may
            answer to that: the letter, the letter in brackets, both with the text, or the text.

    Raises:
        ConfigError: fewer than two options, one twice, empty or with a control token, or more than there are letters.
    """
    texts = check_options(tokenizer, options)
    if letters and len(texts) > len(LETTERS):
        raise ConfigError(f"there are {len(texts)} options; expected at most {len(LETTERS)} with letters")

    def ids(text: str) -> tuple[int, ...]:
        return (*tokenizer.encode(text, add_special_tokens=False).ids, end_id)

    if not letters:
        return Options(texts, question, tuple((ids(text),) for text in texts))
    listed = "\n".join(f"({letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False))
    forms = tuple(
        tuple(dict.fromkeys(map(ids, (letter, f"({letter})", f"({letter}) {text}", f"{letter}. {text}", text))))
        for letter, text in zip(LETTERS, texts, strict=False)
    )
    return Options(texts, f"{question}\n{listed}", forms)


def check_options(tokenizer: Tokenizer, options: Sequence[str]) -> tuple[str, ...]:
    """Give options without surrounding white space.

    Raises:
        ConfigError: as `write_options`.
    """
    if isinstance(options, str):
        raise ConfigError(f"the options are one text, {options!r}; expected a list of texts")
    texts = tuple(option.strip() for option in options)
    if len(texts) < 2 or not all(texts) or len(set(texts)) < len(texts):
        raise ConfigError(f"the options are {list(options)}; expected at least two, each once and none empty")
    controls = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    for text in texts:
        if any(control in text for control in controls):
            raise ConfigError(f"the option {text!r} spells a control token of the model; word it otherwise")
    return texts


def weigh(options: Options, score: Score) -> tuple[Odds, ...]:
    """Ask a model how likely each option is.

    Args:
        options: as `write_options` gives them.
        score: log-probability of each token of given continuations of the prompt.

    Returns:
        Odds in the order of the options; an option that can be said in several ways has the sum of their probabilities
        and the best of their means.
    """
    flat = [form for forms in options.forms for form in forms]
    scores = iter(score(flat))
    totals, means = [], []
    for forms in options.forms:
        said = [next(scores) for _ in forms]
        totals.append(_log_sum([sum(each) for each in said]))
        means.append(max(sum(each) / len(each) for each in said))
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
    """Odds of a long sound: the mean of its windows' log-probabilities over the time.

    Args:
        parts: seconds and odds of each window, at least one.
    """
    whole = sum(seconds for seconds, _ in parts) or 1.0
    count = range(len(parts[0][1]))
    totals = [sum(seconds * odds[i].logprob for seconds, odds in parts) / whole for i in count]
    means = [sum(seconds * odds[i].mean_logprob for seconds, odds in parts) / whole for i in count]
    return odds_of([odds.text for odds in parts[0][1]], totals, means)


def best(odds: Sequence[Odds], *, per_token: bool = False) -> Odds:
    """The likeliest option; of equals the first."""
    return max(odds, key=lambda each: each.mean_logprob if per_token else each.logprob)


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values)) if most > -math.inf else most


def _softmax(values: Sequence[float]) -> list[float]:
    whole = _log_sum(values)
    return [math.exp(value - whole) if whole > -math.inf else 1 / len(values) for value in values]
