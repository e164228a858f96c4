"""Speech enhancement on pairs of noisy and clean clips: the noisy ones, spectral gating, and denoisers.

python benchmarks/enhancement.py MANIFEST [--model NAME ...] [--metric NAME ...] [--transcriber whisper:base]
    [--limit N] [--json] [-o FILE]

The manifest has a noisy clip (``audio``) and the path of its clean one (``clean``) in each row, and may have
``speaker`` and ``text``; recipes/tiny/noisy_pairs.py makes such. Every figure is a mean over clips with its 95 %
interval over resampled speakers, and so are the differences from the noisy clips. PESQ, STOI, SI-SDR, DNSMOS and the
similarity of speakers need the extra enhance: what is missing is left out and named, or an error where --metric asks
for it. ``frames`` is the mean absolute difference of the encoder's frames from those of the clean clip,
``denoised_frames`` the same before the vocoder. Word errors are counted against ``text``, or else against the
transcript of the clean clip.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pairs import machine, options

from auricle import load, load_denoiser
from auricle.audio.decode import decode
from auricle.cli.output import table_lines
from auricle.data.manifest import Entry, read_manifest
from auricle.denoise import SpeechDenoiser
from auricle.errors import AuricleError, DataError, MissingExtra
from auricle.files import write_text
from auricle.metrics import dnsmos, pesq_wb, si_sdr, speaker_similarity, stoi
from auricle.metrics.intervals import bootstrap_mean, bootstrap_sums, plain_score, ratio
from auricle.metrics.word_errors import edit_distance

Waveform = npt.NDArray[np.float32]
Values = dict[str, float]
_RATE = 16_000


class Pair(NamedTuple):
    """One row."""

    noisy: Waveform
    clean: Waveform
    speaker: str
    text: str | None


def _all_dnsmos(made: Waveform, clean: Waveform) -> Values:
    return {f"dnsmos_{name}": value for name, value in dnsmos(made).items()}


METRICS: Mapping[str, Callable[[Waveform, Waveform], Values]] = {
    "pesq": lambda made, clean: {"pesq": pesq_wb(made, clean)},
    "stoi": lambda made, clean: {"stoi": stoi(made, clean), "estoi": stoi(made, clean, extended=True)},
    "si_sdr": lambda made, clean: {"si_sdr": si_sdr(made, clean)},
    "dnsmos": _all_dnsmos,
    "speaker": lambda made, clean: {"speaker": speaker_similarity(made, clean)},
}


def read_pair(entry: Entry, folder: Path) -> Pair:
    """The waveforms of a row.

    Raises:
        DataError: it names no clean clip, or both differ in length.
    """
    if not isinstance(entry.meta.get("clean"), str):
        raise DataError(f"{entry.id}: the row has no clean, the path of the clean clip; expected audio and clean")
    noisy, clean = (decode(path).waveform for path in (entry.audio, folder / entry.meta["clean"]))
    if noisy.shape != clean.shape:
        raise DataError(f"{entry.id}: {noisy.size} noisy and {clean.size} clean samples at 16 kHz; expected as many")
    return Pair(noisy, clean, str(entry.meta.get("speaker", entry.id)), entry.meta.get("text"))


def spectral_gating(noisy: Waveform) -> Waveform:
    """The baseline: noisereduce's non-stationary gating (MIT), with its own defaults."""
    try:
        from noisereduce import reduce_noise
    except ImportError:
        raise MissingExtra("spectral gating", "enhance") from None
    return np.asarray(reduce_noise(y=noisy, sr=_RATE), np.float32)


def _probe() -> Waveform:
    return np.random.default_rng(0).normal(0, 0.1, _RATE).astype(np.float32)


def usable(chosen: list[str] | None) -> dict[str, Callable[[Waveform, Waveform], Values]]:
    """The metrics that run here; those that were asked for must.

    Raises:
        MissingExtra: one that was asked for does not.
    """
    found, probe = {}, _probe()
    for name in chosen or METRICS:
        try:
            METRICS[name](probe, probe)
        except MissingExtra as error:
            if chosen:
                raise
            print(f"left out: {error}", file=sys.stderr)
            continue
        found[name] = METRICS[name]
    return found


def distance(network: torch.nn.Module, made: Waveform, clean: Waveform) -> Values:
    """Of frames."""
    one, other = network.encode([torch.from_numpy(made), torch.from_numpy(clean)])  # type: ignore[operator]
    return {"frames": float((one - other).abs().mean())}


def denoised_distance(network: torch.nn.Module, noisy: Waveform, clean: Waveform) -> Values:
    """Of frames before the vocoder; of the noisy clip those that it is made from."""
    one, other = network.encode([torch.from_numpy(noisy), torch.from_numpy(clean)])  # type: ignore[operator]
    with torch.no_grad():
        denoised = network.denoise_frames([one])[0]  # type: ignore[operator]
    return {"denoised_frames": float((denoised - other).abs().mean())}


def word_errors(transcriber: Any, made: Waveform, wanted: list[str]) -> Values:
    """Errors and words of one clip."""
    return {"word_errors": edit_distance(words(transcriber, made), wanted), "words": len(wanted)}


def words(transcriber: Any, waveform: Waveform) -> list[str]:
    """What is heard, in lower case without punctuation."""
    return plain(str(transcriber.transcribe(waveform).text))


def plain(text: str) -> list[str]:
    """Words of a text."""
    return "".join(c for c in text.lower() if c.isalnum() or c in " '").split()


def measure(
    pair: Pair, systems: Mapping[str, SpeechDenoiser | None], metrics: Any, transcriber: Any
) -> dict[str, Values]:
    """All figures of one pair, by system."""
    network = next((each.network for each in systems.values() if each is not None), None)
    wanted = (plain(pair.text) if pair.text else words(transcriber, pair.clean)) if transcriber else []
    found: dict[str, Values] = {}
    for name, denoiser in systems.items():
        if denoiser is not None:
            made = np.asarray(denoiser.denoise(pair.noisy).waveform, np.float32)
        else:
            made = pair.noisy if name == "noisy" else spectral_gating(pair.noisy)
        values: Values = {}
        for metric in metrics.values():
            values |= metric(made, pair.clean)
        if network is not None:
            values |= distance(network, made, pair.clean)
        if denoiser is not None:
            values |= denoised_distance(denoiser.network, pair.noisy, pair.clean)
        if transcriber:
            values |= word_errors(transcriber, made, wanted)
        found[name] = values
    return found


def scores(rows: list[dict[str, Values]], speakers: list[str]) -> dict[str, Any]:
    """Means with intervals by system, and differences from the noisy clips; a clip without a value is left out."""
    table: dict[str, Any] = {"systems": {}, "minus_noisy": {}}
    for system in rows[0]:
        of_system: dict[str, Any] = {}
        differences: dict[str, Any] = {}
        for metric in rows[0][system]:
            if metric in ("word_errors", "words"):
                continue
            values = np.array([row[system][metric] for row in rows])
            before = np.array([row["noisy"].get(metric, row["noisy"].get("frames", math.nan)) for row in rows])
            for title, each in ((of_system, values), (differences, values - before)):
                kept = np.isfinite(each)
                groups = [speaker for speaker, is_kept in zip(speakers, kept, strict=True) if is_kept]
                title[metric] = plain_score(bootstrap_mean(each[kept], groups=groups))
        if "words" in rows[0][system]:
            columns = [[row[system]["word_errors"], row[system]["words"]] for row in rows]
            of_system["wer"] = plain_score(bootstrap_sums(columns, ratio, groups=speakers))
        table["systems"][system] = of_system
        if system != "noisy":
            table["minus_noisy"][system] = differences
    return table


def known(rows: dict[str, Values]) -> dict[str, dict[str, float | None]]:
    """As JSON holds them."""
    return {
        name: {metric: value if math.isfinite(value) else None for metric, value in values.items()}
        for name, values in rows.items()
    }


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", nargs="+", default=[], help="denoisers: names, folders or files")
    parser.add_argument("--metric", nargs="+", choices=list(METRICS))
    parser.add_argument("--transcriber", help="a model that transcribes, as whisper:base (extra asr)")
    parser.add_argument("--limit", type=int, help="pairs at most, evenly spaced over all")
    args = parser.parse_args()
    try:
        found = run(args)
        text = json.dumps(found, indent=1, allow_nan=False)
        if args.out:
            write_text(args.out, text + "\n")
    except AuricleError as error:
        sys.exit(f"{error}")
    print(text if args.json else "\n".join(lines(found)))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A table for people: metrics in rows, systems in columns."""
    systems = found["systems"]
    names = list(dict.fromkeys(name for values in systems.values() for name in values))
    rows = [(name, *(cell(values.get(name)) for values in systems.values())) for name in names]
    yield from table_lines(("mean [95 % interval]", *systems), rows)
    yield f"{found['pairs']} pairs of {found['speakers']} speakers"


def cell(score: Mapping[str, Any] | None) -> str:
    """A mean with its interval."""
    if score is None or score["value"] is None:
        return ""
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**score)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole table, with facts on what it was made of."""
    metrics = usable(args.metric)
    entries = list(read_manifest(args.manifest))
    step = max(1.0, len(entries) / args.limit) if args.limit else 1.0
    chosen = [entries[int(i * step)] for i in range(int(len(entries) / step))]
    systems: dict[str, SpeechDenoiser | None] = {"noisy": None}
    try:
        spectral_gating(_probe())
        systems["spectral gating"] = None
    except MissingExtra as error:
        print(f"left out: {error}", file=sys.stderr)
    systems |= {name: load_denoiser(name) for name in args.model}
    transcriber = load(args.transcriber) if args.transcriber else None
    rows, speakers, clips = [], [], []
    for number, entry in enumerate(chosen, 1):
        pair = read_pair(entry, args.manifest.parent)
        rows.append(measure(pair, systems, metrics, transcriber))
        speakers.append(pair.speaker)
        clips.append({"id": entry.id, "snr_db": entry.meta.get("snr_db"), "values": known(rows[-1])})
        if number % 20 == 0:
            print(f"{number} of {len(chosen)} pairs", file=sys.stderr)
    if not rows:
        raise DataError(f"{args.manifest} has no rows; expected pairs of audio and clean")
    identities = {name: each.identity for name, each in systems.items() if each is not None}
    facts = {"pairs": len(rows), "speakers": len(set(speakers)), "models": identities, "transcriber": args.transcriber}
    return {**scores(rows, speakers), **facts, **machine(), "clips": clips}


if __name__ == "__main__":
    main()
