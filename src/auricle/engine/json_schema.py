"""Constraints that only allow JSON of a given schema; the grammar is compiled and followed by llguidance."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from auricle.errors import ConfigError, MissingExtra, PromptError


class JsonRules:
    """A JSON schema, compiled for one tokenizer."""

    def __init__(
        self, tokenizer: Tokenizer, schema: Mapping[str, Any], *, vocab_size: int, end_ids: Collection[int]
    ) -> None:
        """Compile a schema.

        Args:
            tokenizer: of the decoder.
            schema: JSON Schema, as a mapping; llguidance documents what it supports.
            vocab_size: of the decoder's logits, which may be more than the tokenizer has.
            end_ids: tokens that end an answer, at least one.

        Raises:
            MissingExtra: llguidance is not installed.
            ConfigError: no schema, or one that cannot be compiled.
        """
        try:
            from llguidance import LLMatcher, LLTokenizer
        except ImportError:
            raise MissingExtra("answers by a JSON schema", "schema") from None
        if not isinstance(schema, Mapping):
            raise ConfigError(f"the schema is a {type(schema).__name__}; expected a mapping such as {{'type': …}}")
        self.end_ids = sorted(end_ids)
        self._compiled = LLTokenizer(tokenizer.to_str(), n_vocab=vocab_size, eos_token=self.end_ids[0])
        try:
            # White space is free in JSON; a small model could fill its whole answer with it.
            self._grammar = LLMatcher.grammar_from_json_schema(
                json.dumps(schema), defaults={"whitespace_flexible": False}
            )
            fault = LLMatcher.validate_grammar(self._grammar, self._compiled)
        except (TypeError, ValueError) as error:
            fault = str(error)
        if fault:
            raise ConfigError(f"the schema cannot be used ({_first_line(fault)}); see https://json-schema.org")

    def constraint(self) -> JsonConstraint:
        """Return the constraint of one answer."""
        from llguidance import LLMatcher

        return JsonConstraint(LLMatcher(self._compiled, self._grammar), self.end_ids)


class JsonConstraint:
    """The grammar, advanced to the end of one answer so far."""

    def __init__(self, matcher: Any, end_ids: Sequence[int]) -> None:
        self._matcher, self._end_ids = matcher, list(end_ids)
        self._ids: list[int] = []

    def allowed(self, ids: Sequence[int]) -> Tensor:
        """Ids (n,) int64 that may follow an answer so far; the end tokens where it is complete."""
        self._follow(list(ids))
        if self._matcher.is_stopped():
            return torch.tensor(self._end_ids)
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        found = torch.from_numpy(np.flatnonzero(np.unpackbits(mask, bitorder="little")))
        if self._end_ids[0] in found:
            return torch.cat([found, torch.tensor(self._end_ids[1:], dtype=torch.long)])
        return found

    def _follow(self, ids: list[int]) -> None:
        known = len(self._ids)
        if ids[:known] != self._ids:
            self._matcher.reset()
            known = 0
        if ids[known:]:
            self._matcher.consume_tokens(ids[known:])
        self._ids = ids


def read_answer(text: str, schema: Mapping[str, Any], max_new_tokens: int) -> Any:
    """Parse an answer that was constrained to a schema.

    Raises:
        PromptError: it ended before the JSON did.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise PromptError(
            f"the answer did not fit into {max_new_tokens} tokens: {text[:60]!r}…; raise max_new_tokens, or limit the "
            f"schema's strings and arrays with maxLength and maxItems ({', '.join(schema) or 'it is empty'})"
        ) from None


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
