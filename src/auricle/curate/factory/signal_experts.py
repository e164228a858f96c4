"""The measures of signal processing as experts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from auricle.curate.factory import measures
from auricle.curate.factory.experts import Expert, ExpertInput, ExpertSettings, Fact, Phase

_VERSION = "1"  # raised whenever a measure gives other numbers


def _level(clip: ExpertInput) -> Iterator[Fact]:
    lufs = measures.loudness(clip.waveform)
    if lufs is not None:
        yield Fact(name="loudness", value=round(lufs, 2))
    yield Fact(name="peak", value=round(measures.peak_db(clip.waveform), 2))
    yield Fact(name="clipped", value=round(measures.clipped_share(clip.waveform), 6))


def _noise(clip: ExpertInput) -> Iterator[Fact]:
    if (ratio := measures.signal_to_noise(clip.waveform)) is not None:
        yield Fact(name="snr", value=round(ratio, 1))


def _bandwidth(clip: ExpertInput) -> Iterator[Fact]:
    if (hertz := measures.bandwidth(clip.waveform)) is not None:
        yield Fact(name="bandwidth", value=round(hertz))


def _reverberation(clip: ExpertInput) -> Iterator[Fact]:
    if (found := measures.reverberation(clip.waveform)) is not None:
        yield Fact(name="reverberation", value=round(found[0], 2), confidence=round(found[1], 4))


def _tempo(clip: ExpertInput) -> Iterator[Fact]:
    if (found := measures.tempo(clip.waveform)) is not None:
        yield Fact(name="bpm", value=round(found[0], 1), confidence=round(found[1], 4))


def _key(clip: ExpertInput) -> Iterator[Fact]:
    if (found := measures.key(clip.waveform)) is not None:
        yield Fact(name="key", value=f"{found[0]} {found[1]}", confidence=round(found[2], 4))


def _maker(
    name: str, phase: Phase, gives: tuple[str, ...], measure: Callable[[ExpertInput], Iterator[Fact]], cost: float
) -> Callable[[ExpertSettings], Expert]:
    def run(clips: Sequence[ExpertInput]) -> list[list[Fact]]:
        return [[replace(fact, stop_s=round(clip.seconds, 3)) for fact in measure(clip)] for clip in clips]

    def make(settings: ExpertSettings) -> Expert:
        letters = "M" if phase == "music" else ""
        return Expert(name=name, version=_VERSION, phase=phase, gives=gives, run=run, letters=letters, cost=cost)

    return make


# Costs as measured on one core of a server.
MAKERS: dict[str, Callable[[ExpertSettings], Expert]] = {
    "level": _maker("level", "acoustics", ("loudness", "peak", "clipped"), _level, 0.0006),
    "noise": _maker("noise", "acoustics", ("snr",), _noise, 0.0012),
    "bandwidth": _maker("bandwidth", "acoustics", ("bandwidth",), _bandwidth, 0.003),
    "reverberation": _maker("reverberation", "acoustics", ("reverberation",), _reverberation, 0.0003),
    "tempo": _maker("tempo", "music", ("bpm",), _tempo, 0.002),
    "key": _maker("key", "music", ("key",), _key, 0.0005),
}
