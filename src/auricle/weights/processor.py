"""Chat messages with audio → token ids with one placeholder per audio token, and the clips in order.

Control tokens (``<|im_end|>``, ``<|AUDIO|>``, …) are written by the chat template alone. A user's text stays text,
even where it spells a control token, so a question cannot end its own turn or refer to audio that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from auricle.audio.decode import as_clip
from auricle.audio.facts import Clip
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.data.untrusted_json import check_characters
from auricle.errors import PromptError
from auricle.models.midashenglm import audio_token_count
from auricle.weights.chat_template import compile_template
from auricle.weights.text_tokenizers import tokenizer_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ROLES = ("system", "user", "assistant")

Message = Mapping[
    str, Any
]  # {"role": …, "content": str | [{"type": "text", "text": …} | {"type": "audio", "audio": …}]}


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of an audio language model."""

    input_ids: list[int]  # one audio placeholder for each audio token
    clips: list[Tensor]  # (N_i,) float32 mono 16 kHz, in the order of their placeholders


class PromptWriter:
    """Writes messages as prompts, by the chat template and tokenizer of one model."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_template: str,
        *,
        audio_token_id: int,
        subsample_factor: int = 5,
        whole_tokens: bool = False,
    ) -> None:
        """Compile the template, see `compile_template`: it comes with the weights and is untrusted.

        Args:
            tokenizer: of the decoder.
            chat_template: Jinja source, as published beside the weights.
            audio_token_id: placeholder of one audio token.
            subsample_factor: 25 Hz frames per audio token.
            whole_tokens: whether the model pads clips to whole audio tokens.

        Raises:
            PromptError: the template is no Jinja, or the tokenizer lacks the placeholder.
        """
        self._tokenizer = tokenizer
        self._render = compile_template(chat_template)
        self._audio_token_id = audio_token_id
        self._subsample_factor, self._whole_tokens = subsample_factor, whole_tokens
        self._controls = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
        if audio_token_id not in self._controls.values():
            raise PromptError(
                f"the tokenizer has no added token {audio_token_id}, which config.json names as audio placeholder; "
                "take both files from the same model"
            )
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._plain = _without_added_tokens(tokenizer)

    def write(self, messages: Sequence[Message], *, limits: Limits = DEFAULT_LIMITS) -> Prompt:
        """Write messages, whose audio may be anything `auricle.audio.decode.as_clip` takes, as a prompt.

        Args:
            messages: turns in any order; contents in any order, with any number of clips.
            limits: budgets for decoding the audio.

        Raises:
            PromptError: messages of another shape, or a template without a place for the clips.
            AudioError: a clip cannot be read.
        """
        clips: list[Clip] = []
        turns = [_turn(message, clips, limits) for message in messages]
        if not turns:
            raise PromptError('there are no messages; expected at least [{"role": "user", "content": "…"}]')
        waveforms = [torch.from_numpy(clip.waveform) for clip in clips]
        counts = [
            audio_token_count(len(waveform), self._subsample_factor, whole_tokens=self._whole_tokens)
            for waveform in waveforms
        ]
        return Prompt(self._expand(self._encode(turns), counts), waveforms)

    def _encode(self, turns: list[dict[str, Any]]) -> list[int]:
        turns, shield = self._shield(turns)
        rendered = self._render(turns)
        ids: list[int] = []
        for index, piece in enumerate(self._splitter.split(rendered)):
            if index % 2:
                ids.append(self._controls[piece])
            elif piece:
                text = piece.translate(shield)
                with tokenizer_errors("this prompt"):
                    ids.extend(self._plain.encode(text, add_special_tokens=False).ids)
        return ids

    def _shield(self, turns: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, str]]:
        """Swap, in the users' text, every first character of a control token for one that occurs nowhere.

        The template runs over the swapped text, so no control token can start in it; the returned table swaps back.
        """
        texts = "".join(part["text"] for turn in turns for part in _text_parts(turn))
        private = (chr(code) for code in range(0xF0000, 0x10FFFE) if chr(code) not in texts)
        swaps = {ord(character): next(private) for character in sorted({name[0] for name in self._controls})}
        back = {ord(stand_in): chr(character) for character, stand_in in swaps.items()}

        def swap(content: Any) -> Any:
            if isinstance(content, str):
                return content.translate(swaps)
            return [{**part, "text": part["text"].translate(swaps)} if "text" in part else part for part in content]

        return [{"role": turn["role"], "content": swap(turn["content"])} for turn in turns], back

    def _expand(self, ids: list[int], counts: list[int]) -> list[int]:
        places = ids.count(self._audio_token_id)
        if places != len(counts):
            raise PromptError(
                f"the chat template makes {places} audio placeholders for {len(counts)} clips; "
                "put clips into turns that the template renders with audio (usually the user's)"
            )
        remaining = iter(counts)
        expanded: list[int] = []
        for token in ids:
            expanded.extend([token] * (next(remaining) if token == self._audio_token_id else 1))
        return expanded


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, to which every control token is plain text."""
    import json

    from tokenizers import Tokenizer as Factory

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = []
    state["padding"] = state["truncation"] = state["post_processor"] = None
    with tokenizer_errors("the vocabulary"):
        return Factory.from_str(json.dumps(state))


def _turn(message: Message, clips: list[Clip], limits: Limits) -> dict[str, Any]:
    """Check one message; its clips are appended to ``clips``."""
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise PromptError(f'a message is {{"role": …, "content": …}}; got {_short(message)}')
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise PromptError(f"unknown role {role!r}; expected one of {', '.join(ROLES)}")
    if isinstance(content, str):
        check_characters(content, f"the text of a message of role {role}", PromptError)
        return {"role": role, "content": content}
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise PromptError(f"content is a str or a list of parts; got {_short(content)}")
    return {"role": role, "content": [_part(part, clips, limits) for part in content]}


def _part(part: Any, clips: list[Clip], limits: Limits) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        check_characters(part["text"], "the text of a message", PromptError)
        return {"type": "text", "text": part["text"]}
    source = _audio_of(part) if isinstance(part, Mapping) else None
    if source is not None:
        clips.append(as_clip(source, limits=limits))
        return {"type": "audio", "audio": f"clip-{len(clips)}"}
    raise PromptError(
        'a part is {"type": "text", "text": str} or {"type": "audio", "audio": path or waveform}; '
        f"got {_short(part)}"
    )


def _audio_of(part: Mapping[str, Any]) -> Any:
    """The source of an audio part in any of the forms in use; None: it is no such part."""
    kind = part.get("type")
    if kind == "audio":
        return next((part[key] for key in ("audio", "path", "url") if part.get(key) is not None), None)
    if kind not in ("audio_url", "input_audio"):
        return None
    value = part.get(kind)
    if not isinstance(value, Mapping):
        return value
    return value.get("url") if kind == "audio_url" else f"data:;base64,{value.get('data', '')}"


def _text_parts(turn: dict[str, Any]) -> list[dict[str, str]]:
    content = turn["content"]
    return [{"text": content}] if isinstance(content, str) else [part for part in content if "text" in part]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
