"""Time and money of a run at any scale, from what each stage cost in a run that was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auricle.errors import ConfigError, DataError, check_number

ACAV_HOURS = 263_000.0  # of ACAV100M, 94.9 million clips of 10 s: the scale of ACAVCaps (arXiv 2603.24038)
_CPU_STAGES = ("segment", "caption", "check", "pack")  # beside the experts; the filter is an expert of its own


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What computing costs, in any unit of money, and how much of it there is."""

    cores: int = 1
    gpus: int = 0
    core_hour: float = 0.0
    gpu_hour: float = 0.0
    prompt_tokens: float = 0.0  # of a million
    answer_tokens: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no amount."""
        check_number("cores", self.cores, least=1, whole=True)
        check_number("gpus", self.gpus, least=0, whole=True)
        for name in ("core_hour", "gpu_hour", "prompt_tokens", "answer_tokens"):
            check_number(name, getattr(self, name), least=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One stage at scale."""

    stage: str
    expert: str  # empty: a stage without
    device: str  # "cpu" or "cuda"; "endpoint" of a language model
    share: float  # of the audio that it processes, 0 to 1
    unit: float  # s of computing for each s of that audio; of an endpoint tokens for each clip
    hours: float  # of computing, on one core or GPU; of an endpoint 0
    wall_h: float  # on all of them
    money: float


def plan(summary: Mapping[str, Any], hours: float, prices: Prices | None = None) -> list[Cost]:
    """What each stage takes for so many hours of audio like those of a run.

    Args:
        summary: of the run that was measured, see `auricle.curate.factory.results.read_summary`.
        hours: of audio.
        prices: of computing and tokens.

    Raises:
        ConfigError: hours that are none, or experts on a GPU where none is planned.
        DataError: the run measured nothing.
    """
    check_number("hours", hours, least=1e-6, expected="hours of audio")
    prices = prices or Prices()
    audio_s = float(summary["audio_s"])
    if audio_s <= 0:
        raise DataError("the run processed no audio, so that nothing was measured; run it on some clips first")
    return [
        *(_computing("segment", "", "cpu", audio_s, audio_s, summary["stages"]["segment"], hours, prices),),
        *(
            _computing(
                each["stage"], each["expert"], each["device"], audio_s, each["audio_s"], each["seconds"], hours, prices
            )
            for each in summary["costs"]
            if each["audio_s"]
        ),
        *(
            _computing(name, "", "cpu", audio_s, audio_s, summary["stages"][name], hours, prices)
            for name in _CPU_STAGES[1:3]
        ),
        *_filtering(summary, audio_s, hours, prices),
        *_writing(summary, audio_s, hours, prices),
        _computing("pack", "", "cpu", audio_s, audio_s, summary["stages"]["pack"], hours, prices),
    ]


def total(costs: Sequence[Cost]) -> Cost:
    """The sum of a plan; the wall time is that of the stages one after the other."""
    return Cost(
        stage="all",
        expert="",
        device="",
        share=1.0,
        unit=sum(cost.unit * cost.share for cost in costs if cost.device != "endpoint"),
        hours=sum(cost.hours for cost in costs),
        wall_h=sum(cost.wall_h for cost in costs),
        money=sum(cost.money for cost in costs),
    )


def _computing(
    stage: str,
    expert: str,
    device: str,
    audio_s: float,
    seen_s: float,
    seconds: float,
    hours: float,
    prices: Prices,
) -> Cost:
    is_gpu = device.startswith("cuda")
    if is_gpu and not prices.gpus:
        raise ConfigError(f"{expert} was measured on a GPU; plan some with --gpus")
    share, unit = min(1.0, seen_s / audio_s), seconds / seen_s
    needed = hours * share * unit
    return Cost(
        stage=stage,
        expert=expert,
        device="cuda" if is_gpu else "cpu",
        share=share,
        unit=unit,
        hours=needed,
        wall_h=needed / (prices.gpus if is_gpu else prices.cores),
        money=needed * (prices.gpu_hour if is_gpu else prices.core_hour),
    )


def _filtering(summary: Mapping[str, Any], audio_s: float, hours: float, prices: Prices) -> list[Cost]:
    """The filter, where the run had one."""
    seconds = summary["stages"]["filter"]
    if not summary.get("aligner"):
        return []
    return [_computing("filter", summary["aligner"], "cpu", audio_s, audio_s, seconds, hours, prices)]


def _writing(summary: Mapping[str, Any], audio_s: float, hours: float, prices: Prices) -> list[Cost]:
    """The language model, by the tokens that each clip took; its time is the server's."""
    used = summary.get("endpoint")
    if not used or not used["answered"]:
        return []
    clips = hours * 3600 * used["answered"] / audio_s
    prompts, answers = used["prompt_tokens"] / used["answered"], used["answer_tokens"] / used["answered"]
    money = clips * (prompts * prices.prompt_tokens + answers * prices.answer_tokens) / 1e6
    return [
        Cost(
            stage="rewrite",
            expert=summary["writer"],
            device="endpoint",
            share=min(1.0, used["answered_s"] / audio_s),
            unit=prompts + answers,
            hours=0.0,
            wall_h=0.0,
            money=money,
        )
    ]
