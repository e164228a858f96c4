"""What the scripts share: two ways timed in alternation, so that a busy machine slows both; options, facts, output."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]
_RATE = 16_000  # Hz
_PAIR = ("name", "speedup", "ours_s", "reference_s", "rounds")  # what `compare` gives every row


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Seconds of both ways, one pair a round, after one call of each; who goes first changes every round."""
    ours(), theirs()
    pairs = []
    for turn in range(rounds):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        spent = {first: seconds(first)}
        spent[second] = seconds(second)
        pairs.append((spent[ours], spent[theirs]))
    return pairs


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median and extremes."""
    return {name: round(of(values), digits) for name, of in (("median", median), ("min", min), ("max", max))}


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int, **facts: Any) -> Row:
    """Time a pair; ``facts`` go into the row."""
    pairs = alternate(ours, theirs, rounds)
    return {
        "name": name,
        "speedup": spread([other / own for own, other in pairs]),
        "ours_s": round(median(own for own, _ in pairs), 4),
        "reference_s": round(median(other for _, other in pairs), 4),
        "rounds": rounds,
        **facts,
    }


def make_clips(durations_s: Sequence[float], seed: int = 0) -> list[Tensor]:
    """Swelling tones in noise, (N_i,) each."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    clips = []
    for duration_s in durations_s:
        time_s = torch.arange(round(duration_s * _RATE)) / _RATE
        hz, swell_hz, phase = torch.rand(3, 3, 1, generator=generator)
        tones = torch.sin(6.2832 * 4000 * hz * time_s) * torch.sin(6.2832 * swell_hz * time_s + 6.2832 * phase)
        clips.append(0.1 * tones.sum(0) + 0.02 * torch.randn(len(time_s), generator=generator))
    return clips


def options(
    description: str | None, *, rounds: int | None = None, threads: int | None = None
) -> argparse.ArgumentParser:
    """A parser with the options that all scripts have; ``rounds`` and ``threads`` are defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-o", "--out", "--output", type=Path, help="write the JSON object here too")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="of measuring, each way once")
    if threads is not None:
        parser.add_argument("--threads", type=int, default=threads)
    return parser


def processor() -> str:
    """Model name of the CPU, as far as the system says."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0]} ({len(names)} CPUs)" if names else platform.processor() or platform.machine()


def machine() -> Row:
    """What speed depends on. Taken before measuring, the load is that of others."""
    return {
        "cpu": processor(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": version("torch"),  # without importing it, which some scripts measure
        "python": platform.python_version(),
    }


def run_rows(args: argparse.Namespace, rows: Mapping[str, Callable[[], Row]], gpu: Callable[[], list[Row]]) -> Row:
    """The rows that ``--only`` names or all, those of a GPU where there is one, and the facts they depend on."""
    import torch

    facts = {"cpu_capability": torch.backends.cpu.get_cpu_capability(), **machine()}
    has_gpu = torch.cuda.is_available()
    found = [rows[name]() for name in args.only or rows if name != "gpu"]
    if has_gpu and "gpu" in (args.only or ["gpu"]):
        found += gpu()
    return {
        "rows": found,
        "skipped": None if has_gpu else "GPU rows skipped: torch finds no CUDA device",
        "quick": args.quick,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        **facts,
    }


def show(results: Row) -> None:
    """Comparisons, each with its other facts below, and the facts they all depend on."""
    for row in results.get("rows", []):
        print(row["name"])
        if "speedup" in row:
            ratio = row["speedup"]
            print(
                f"    {ratio['median']:.2f} × ({ratio['min']:.2f}-{ratio['max']:.2f}, {row['rounds']} rounds)"
                + (f", {row['ours_s']:.3g} s against {row['reference_s']:.3g} s" if "ours_s" in row else "")
            )
        print("   ", ", ".join(f"{key} {value}" for key, value in row.items() if key not in _PAIR))
    facts = {key: value for key, value in results.items() if key != "rows"}
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key:{width}} {value}")


def write(results: Row, args: argparse.Namespace, show: Callable[[Row], None] = show) -> None:
    """Store results and print them, as the options say."""
    if args.out:
        args.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(results, ensure_ascii=False))
    else:
        show(results)
