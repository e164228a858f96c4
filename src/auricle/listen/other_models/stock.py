"""Audio language models in the classes of `transformers`: each prompt alone, through the processor of the model.

No code of a checkpoint is run: classes are named here, and tensors are read from safetensors. Audio is resampled to the
rate of the processor before it is given, for a processor takes any array for its own rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import soxr
import torch

from auricle.audio.facts import Clip
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import AudioSource
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ConfigError, LimitExceeded, MissingExtra, WeightsError
from auricle.listen.capabilities import Capabilities
from auricle.listen.long_audio import Recording, Reply
from auricle.listen.options import best, weigh
from auricle.listen.other_models.prompted import InMessages, PromptedLM, Turn, Turns
from auricle.listen.other_models.stock_classes import STOCK_CLASSES, StockClass
from auricle.listen.outputs import Choice
from auricle.listen.pipeline import each_source, process
from auricle.listen.verbs import Choosing
from auricle.weights import catalog, safe
from auricle.weights.catalog import Source
from auricle.weights.layouts import reads_models
from auricle.weights.loaders import DTYPES, device_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SLACK = 0.02  # share of the audio tokens that rounding and the ends of windows may cost


@dataclass(frozen=True, slots=True)
class StockModel:
    """A loaded model of `transformers`."""

    kind: StockClass
    network: Any
    processor: Any
    identity: Mapping[str, Any]  # name, revision, sha256


class StockLM(PromptedLM):
    """A model in a class of `transformers`."""

    def __init__(self, stock: StockModel) -> None:
        """Use a loaded model.

        Raises:
            WeightsError: the processor has no chat template, or does not state its limits.
        """
        self.stock = stock
        self._extractor = getattr(stock.processor, "feature_extractor", None) or stock.processor.audio_processor
        if not stock.processor.chat_template:
            raise WeightsError(f"{stock.identity['name']}: has no chat template; add chat_template.jinja to its folder")
        text = stock.network.config.get_text_config()
        longest = stock.kind.longest_s(stock.processor, getattr(text, "max_position_embeddings", None))
        super().__init__(str(stock.identity["name"]), max_audio_s=longest)

    @property
    def capabilities(self) -> Capabilities:
        """Those of its class, with the limits of its own files."""
        return self.stock.kind.capabilities(self.max_audio_s, int(self._extractor.sampling_rate))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides its answers: weights, type, class and version of transformers, template."""
        import transformers

        identity = self.stock.identity  # the same weights give the same answers at any path, under any name
        decided = {
            "identity": dict(identity) if identity["sha256"] is None else identity["sha256"],
            "dtype": str(self.stock.network.dtype),
            "class": self.stock.kind.model,
            "transformers": transformers.__version__,
            "chat_template": str(self.stock.processor.chat_template),
            "max_audio_s": self.max_audio_s,
        }
        return sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    @property
    def answer_tokens(self) -> tuple[Tokenizer, int]:
        """The tokenizer of answers, and the token that ends one."""
        return self.stock.processor.tokenizer.backend_tokenizer, min(self._end_ids)

    def replies(self, prompts: Sequence[Turns], sampling: SamplingParams) -> Sequence[Reply | AuricleError]:
        """Each prompt alone: what a clip gives does not depend on others."""
        return [self._tried(partial(self._inputs, turns), _seconds(turns), sampling) for turns in prompts]

    def transcripts(
        self, clips: Sequence[Clip], language: str | None, sampling: SamplingParams
    ) -> Sequence[Reply | AuricleError]:
        """By the processor's own prompt where it has one."""
        kind = self.stock.kind
        if language is not None and kind.has_transcription_prompt and not kind.speaks_language:
            raise ConfigError(
                f"{self.model} has a prompt for transcripts that names no language; leave out {language!r}"
            )
        if not kind.has_transcription_prompt:
            return super().transcripts(clips, language, sampling)
        named = {"return_tensors": "pt", **({"language": language} if kind.speaks_language else {})}
        found = []
        for clip in clips:
            inputs = partial(self.stock.processor.apply_transcription_request, self._resampled(clip), **named)
            found.append(self._tried(inputs, len(clip.waveform) / SAMPLE_RATE, sampling, kind.transcript_form))
        return found

    def choose_many(
        self,
        sources: Iterable[AudioSource],
        question: str,
        options: Sequence[str],
        *,
        batch_size: int = 8,
        letters: bool = False,
        per_token: bool = False,
        window_s: float | None = None,
    ) -> Iterator[Choice | AuricleError]:
        """As `AudioLM.choose_many`."""
        self.require("choose")
        task = _Choosing(self, question, options, letters=letters, per_token=per_token, window_s=window_s)
        return process(task, each_source(sources, [task.options.prompt], "choose"), batch_size)

    def logprobs(self, turns: Turns, continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each token of each continuation of a prompt, nats; each is computed from the start."""
        inputs = self._checked(self._inputs(turns), _seconds(turns))
        shape, found = inputs["input_ids"].shape, []
        for ids in continuations:
            more = torch.tensor([list(ids)], device=self.stock.network.device)
            longer = {"input_ids": more, "attention_mask": torch.ones_like(more)}
            grown = {
                name: torch.cat([value, longer.get(name, torch.zeros_like(more)).to(value.dtype)], dim=1)
                if isinstance(value, torch.Tensor) and value.shape == shape
                else value
                for name, value in inputs.items()
            }
            with torch.inference_mode():
                logits = self.stock.network(**grown, use_cache=False).logits[0, shape[1] - 1 : -1].float()
            found.append(logits.log_softmax(-1).gather(1, more[0][:, None])[:, 0].tolist())
        return found

    # --- one prompt

    @property
    def _end_ids(self) -> list[int]:
        ends = self.stock.network.generation_config.eos_token_id
        ends = self.stock.processor.tokenizer.eos_token_id if ends is None else ends
        return ends if isinstance(ends, list) else [ends]

    def _resampled(self, clip: Clip) -> Any:
        rate = int(self._extractor.sampling_rate)
        return clip.waveform if rate == SAMPLE_RATE else soxr.resample(clip.waveform, SAMPLE_RATE, rate, quality="HQ")

    def _inputs(self, turns: Turns) -> Any:
        messages = [{"role": turn.role, "content": [self._part(part) for part in turn.content]} for turn in turns]
        return self.stock.processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
        )

    def _part(self, part: str | Clip) -> dict[str, Any]:
        if isinstance(part, str):
            controls = [each for each in self.stock.processor.tokenizer.all_special_tokens if each in part]
            if controls:
                raise ConfigError(f"the text holds {controls[0]!r}, a control token of {self.model}; use other words")
            return {"type": "text", "text": part}
        return {"type": "audio", "audio": self._resampled(part)}

    def _checked(self, inputs: Any, seconds: float) -> Any:
        """Inputs on the device, with as many audio tokens as the seconds of audio need.

        Raises:
            LimitExceeded: the processor has cut the audio.
        """
        kind, network = self.stock.kind, self.stock.network
        config = network.config
        audio_id = getattr(config, "audio_token_id", None)
        audio_id = getattr(config, "audio_token_index", audio_id) if audio_id is None else audio_id
        count = int((inputs["input_ids"] == audio_id).sum())
        wanted = (kind.tokens_per_s or 0.0) * seconds
        if seconds and count < math.floor(wanted * (1 - _SLACK)) - 2:
            raise LimitExceeded(
                f"{self.model}: its processor made {count} audio tokens of {seconds:.1f} s, expected "
                f"about {wanted:.0f}: it has cut the audio; state a shorter limit in its preprocessor_config.json"
            )
        inputs = inputs.to(network.device)
        floats = {
            k: v.to(network.dtype) for k, v in inputs.items() if isinstance(v, torch.Tensor) and v.is_floating_point()
        }
        return {**inputs, **floats}

    def _tried(
        self, make: Any, seconds: float, sampling: SamplingParams, form: Mapping[str, Any] | None = None
    ) -> Reply | AuricleError:
        """A reply, or the error of this clip: processors raise what they will."""
        try:
            return self._reply(self._checked(make(), seconds), sampling, form)
        except ConfigError:
            raise
        except AuricleError as error:
            return error
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            return LimitExceeded(f"{self.model} cannot take it ({type(error).__name__}: {reason}); give another clip")

    def _reply(self, inputs: Any, sampling: SamplingParams, form: Mapping[str, Any] | None) -> Reply:
        if sampling.top_logprobs:
            raise ConfigError(f"{self.model} gives no top_logprobs; leave them out")
        with torch.inference_mode(), _seeded(sampling):
            found = self.stock.network.generate(
                **inputs,
                **_generation(sampling, self.stock.processor.tokenizer),
                return_dict_in_generate=True,
                output_logits=True,
            )
        ids = found.sequences[0, -len(found.logits) :]
        logprobs = [
            float(step[0].float().log_softmax(-1)[token]) for step, token in zip(found.logits, ids, strict=True)
        ]
        ends, new = self._end_ids, ids.tolist()
        has_ended = bool(new) and new[-1] in ends
        decode = self.stock.processor.decode if form else self.stock.processor.tokenizer.decode
        text = decode(new, skip_special_tokens=True, **(form or {}))
        text = next((text[: text.index(stop)] for stop in sampling.stop if stop in text), text)
        is_cut = not has_ended and len(new) >= sampling.max_new_tokens
        mean = sum(logprobs) / len(logprobs) if logprobs else 0.0
        remark = f"the answer was cut at {sampling.max_new_tokens} tokens" if is_cut else ""
        return Reply(text=text.strip(), mean_logprob=mean, remark=remark)


class _Choosing(InMessages, Choosing):
    """Choices, see `Choosing`."""

    model: StockLM

    def answer(self, prompts: Sequence[Any]) -> list[Reply]:
        """Score the options behind each prompt."""
        replies = []
        for prompt in prompts:
            odds = weigh(self.options, partial(self.model.logprobs, prompt))
            chosen = best(odds, per_token=self._per_token)
            replies.append(Reply(text=chosen.text, mean_logprob=chosen.mean_logprob, odds=odds))
        return replies

    def result(self, recording: Recording) -> Choice:
        """Pool the odds; audio tokens are not counted as Auricle's own are."""
        found = super().result(recording)
        return replace(found, receipt=replace(found.receipt, audio_tokens=0, padded_s=0.0))


def _seconds(turns: Sequence[Turn]) -> float:
    clips = [part for turn in turns for part in turn.content if isinstance(part, Clip)]
    return sum(len(clip.waveform) for clip in clips) / SAMPLE_RATE


def _generation(sampling: SamplingParams, tokenizer: Any) -> dict[str, Any]:
    """Arguments of `generate`; those of the checkpoint's own generation_config do not count, but for its end tokens."""
    chance: dict[str, Any] = {"temperature": None, "top_p": None, "top_k": None}
    if sampling.do_sample:
        chance = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    stops = {"stop_strings": list(sampling.stop), "tokenizer": tokenizer} if sampling.stop else {}
    return {
        "max_new_tokens": sampling.max_new_tokens,
        "min_new_tokens": sampling.min_new_tokens or None,
        "do_sample": sampling.do_sample,
        "num_beams": 1,
        "repetition_penalty": sampling.repetition_penalty,
        **chance,
        **stops,
    }


@contextmanager
def _seeded(sampling: SamplingParams) -> Iterator[None]:
    """Random numbers of a seed, and those of before afterwards."""
    if sampling.seed is None or not sampling.do_sample:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(sampling.seed)
        yield


def stock_class(source: Source) -> StockClass | None:
    """The class of a model by its config.json; None: it is none of these."""
    settings = source.path / "config.json"
    if source.is_part or not settings.is_file():
        return None
    return STOCK_CLASSES.get(str(safe.read_json(settings).get("model_type")))


@reads_models
def load_stock(name: str, source: Source, kind: StockClass, *, device: str, dtype: str | None) -> StockLM:
    """Load a model from its folder.

    Raises:
        MissingExtra: transformers is not installed.
        WeightsError: this transformers has no such class, or the files are incomplete or do not fit.
        ConfigError: unknown device or type.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtra(name, "transformers") from None
    if dtype not in (None, "auto") and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    network_class = getattr(transformers, kind.model, None)
    if network_class is None:
        raise WeightsError(f"{name}: transformers {transformers.__version__} has no {kind.model}; install a newer one")
    try:
        processor = _processor(transformers, source, kind)
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"{name}: its processor needs another package ({reason}); install it") from None
    network, info = network_class.from_pretrained(
        source.path,
        dtype=DTYPES[dtype] if dtype in DTYPES else "auto",
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if absent := sorted([*info["missing_keys"], *(each[0] for each in info["mismatched_keys"])]):
        raise WeightsError(
            f"{name}: {len(absent)} tensors are absent or of another shape, first {absent[0]}; restore its files"
        )
    identity = {"name": name, "revision": source.revision, "sha256": catalog.fingerprint(source)}
    return StockLM(StockModel(kind, network.to(device_of(device)).eval(), processor, identity))


def _processor(transformers: Any, source: Source, kind: StockClass) -> Any:
    """The processor; of models that also see without the parts for images and videos, which need more packages."""
    chosen = getattr(transformers, kind.processor)
    if not kind.has_vision:
        return chosen.from_pretrained(source.path, local_files_only=True)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(source.path, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source.path, local_files_only=True)
    template = source.path / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else tokenizer.chat_template
    if text is None and (older := source.path / "chat_template.json").is_file():
        text = safe.read_json(older).get("chat_template")
    parts = classmethod(lambda _: ["feature_extractor", "tokenizer"])
    made: Any = object.__new__(type(kind.processor, (chosen,), {"get_attributes": parts}))
    transformers.ProcessorMixin.__init__(made, feature_extractor=extractor, tokenizer=tokenizer, chat_template=text)
    for name in ("audio", "image", "video"):
        setattr(made, f"{name}_token", getattr(tokenizer, f"{name}_token"))
        setattr(made, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    for name in ("vision_bos_token", "vision_eos_token", "audio_bos_token", "audio_eos_token"):
        setattr(made, name, getattr(tokenizer, name))
    return made
