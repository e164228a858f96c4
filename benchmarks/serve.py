"""Load `auricle serve` as its clients would: arrivals by chance, which do not wait for slow answers.

python benchmarks/serve.py [--seconds 60] [--levels 0.5 0.8 1.0 1.5 3.0] [--url URL] [--soak SECONDS] [--json]

Without --url a server is started, and ended with SIGTERM under load. Clips last 1 to 60 s (log-normal, median 8 s; with
--long five in a hundred up to 10 minutes), as wav, flac, ogg and mp3; 60 % are described as streams, 25 % transcribed,
15 % embedded; 20 % repeat an earlier request. Every answer is compared with that of the same clip alone. Latencies
count from the time at which a request was due, so that a server that falls behind cannot hide it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import soundfile
from pairs import machine, options, write

RATE = 16_000  # Hz
FORMATS = (
    ("wav", "WAV", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
)
SHARES = {"describe": 0.60, "transcribe": 0.25, "embed": 0.15}
REPEATED = 0.2
BROKEN, NOBODY = 0, -1  # in the place of a status: an answer without its end, and no connection
BATCHED = 16  # requests at once where the capacity is measured


@dataclass
class Clip:
    """One clip, and its answers alone."""

    seconds: float
    name: str
    content: bytes
    golden: dict[str, Any] = field(default_factory=dict)


@dataclass
class Done:
    """One answer."""

    status: int
    first_s: float  # from when it was due to the first piece
    whole_s: float
    sent_s: float  # from when it was sent: what a refusal takes
    seconds: float  # of audio
    is_wrong: bool


def make_clips(count: int, has_long: bool, seed: int = 1) -> list[Clip]:
    """Tones that come and go in noise, different in each."""
    rng = np.random.default_rng(seed)
    clips = []
    for index in range(count):
        seconds = float(np.clip(rng.lognormal(np.log(8), 0.8), 1, 60))
        if has_long and rng.random() < 0.05:
            seconds = float(rng.uniform(60, 600))
        times = np.arange(round(seconds * RATE)) / RATE
        tone = np.sin(2 * np.pi * rng.uniform(100, 4000) * times) * np.sin(2 * np.pi * rng.uniform(0.1, 2) * times)
        ending, form, subtype = FORMATS[index % len(FORMATS)]
        file = io.BytesIO()
        soundfile.write(file, 0.1 * tone + 0.02 * rng.standard_normal(len(times)), RATE, format=form, subtype=subtype)
        clips.append(Clip(seconds, f"{index}.{ending}", file.getvalue()))
    return clips


async def ask(client: httpx.AsyncClient, verb: str, clip: Clip, serial: int) -> tuple[int, float, Any]:
    """Send one request; its status, the time of the first piece, and what it says but for the name of the clip."""
    # The name makes a request different from all others, which would be answered as one.
    name = f"{serial}.{clip.name.rpartition('.')[2]}"
    if verb == "embed":
        data = base64.b64encode(clip.content).decode()
        parts = [name, {"type": "input_audio", "input_audio": {"data": data}}]
        found = await client.post("/v1/embeddings", json={"input": parts, "encoding_format": "base64"})
        said = found.json()["data"][1]["embedding"] if found.status_code == 200 else None
        return found.status_code, time.perf_counter(), said
    path, fields = ("describe", {"stream": "true"}) if verb == "describe" else ("transcribe", {})
    async with client.stream("POST", f"/v1/audio/{path}", data=fields, files={"file": (name, clip.content)}) as found:
        first, text = 0.0, ""
        async for piece in found.aiter_text():
            first, text = first or time.perf_counter(), text + piece
    if found.status_code != 200:
        return found.status_code, time.perf_counter(), None
    events = [each.removeprefix("data: ") for each in text.split("\n\n")] if verb == "describe" else [text]
    said = json.loads(next(each for each in reversed(events) if each.startswith("{")))
    said.pop("file"), said["receipt"].pop("file")
    return found.status_code, first, said


async def timed(client: httpx.AsyncClient, verb: str, clip: Clip, serial: int, due: float) -> Done:
    """One request, due at a time."""
    sent = time.perf_counter()
    try:
        status, first, said = await ask(client, verb, clip, serial)
    except httpx.ConnectError:
        status, first, said = NOBODY, time.perf_counter(), None
    except (httpx.HTTPError, StopIteration, ValueError):
        status, first, said = BROKEN, time.perf_counter(), None
    end = time.perf_counter()
    is_wrong = status == 200 and verb in clip.golden and said != clip.golden[verb]
    return Done(status, first - due, end - due, end - sent, clip.seconds, is_wrong)


async def closed_loop(client: httpx.AsyncClient, clips: list[Clip], seconds: float, at_once: int) -> float:
    """Requests a second of clients that each wait for their answer: the capacity."""
    end, count, serial = time.perf_counter() + seconds, 0, 10**9 + at_once * 10**6
    rng = random.Random(at_once)

    async def client_of() -> None:
        nonlocal count, serial
        while time.perf_counter() < end:
            serial += 1
            done = await timed(client, pick(rng), rng.choice(clips), serial, time.perf_counter())
            count += done.status == 200

    start = time.perf_counter()
    await asyncio.gather(*(client_of() for _ in range(at_once)))
    return count / (time.perf_counter() - start)


async def open_loop(client: httpx.AsyncClient, clips: list[Clip], seconds: float, rate: float, seed: int) -> list[Done]:
    """Poisson arrivals at a rate, whatever the server does."""
    rng, due, tasks = random.Random(seed), time.perf_counter(), []
    end, earlier = due + seconds, []
    serial = seed * 10**6
    while (due := due + rng.expovariate(rate)) < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        serial += 1
        if earlier and rng.random() < REPEATED:
            request = rng.choice(earlier)
        else:
            request = (pick(rng), rng.choice(clips), serial)
            earlier.append(request)
        tasks.append(asyncio.create_task(timed(client, *request, due)))
    return list(await asyncio.gather(*tasks))


def pick(rng: random.Random) -> str:
    """A verb by its share."""
    return rng.choices(list(SHARES), list(SHARES.values()))[0]


def figures(done: list[Done], seconds: float) -> dict[str, Any]:
    """What a level is judged by."""
    good = [each for each in done if each.status == 200]
    refused = [each for each in done if each.status == 429]
    statuses = Counter(str(each.status) for each in done)

    def percentiles(values: list[float]) -> dict[str, float]:
        return {f"p{q}": round(1000 * float(np.percentile(values, q)), 1) for q in (50, 95, 99)} if values else {}

    return {
        "requests": len(done),
        "statuses": dict(statuses),
        "first_piece_ms": percentiles([each.first_s for each in good]),
        "whole_ms": percentiles([each.whole_s for each in good]),
        "refusal_ms": percentiles([each.sent_s for each in refused]),
        "goodput_per_s": round(len(good) / seconds, 2),
        "audio_s_per_s": round(sum(each.seconds for each in good) / seconds, 1),
        "refused_share": round(len(refused) / max(1, len(done)), 4),
        "wrong": sum(each.is_wrong for each in done),
        "failed": len(done) - len(good) - len(refused),
    }


def overhead(clips: list[Clip], url: str) -> dict[str, float]:
    """Median milliseconds of a description over HTTP and by the library, one after the other."""
    import auricle

    model, spent = auricle.load("auricle-tiny", device="cpu"), []
    short = [clip for clip in clips if clip.seconds < 30][:30]
    with httpx.Client(base_url=url, timeout=60) as client:
        for turn, clip in enumerate([*short[:3], *short]):
            start = time.perf_counter()
            client.post("/v1/audio/describe", files={"file": (f"o{turn}", clip.content)}).raise_for_status()
            middle = time.perf_counter()
            model.describe(clip.content)
            spent.append((middle - start, time.perf_counter() - middle))
    served, own = (round(1000 * float(np.median(each)), 2) for each in zip(*spent[3:], strict=True))
    both = round(1000 * float(np.median([a - b for a, b in spent[3:]])), 2)
    return {"served_ms": served, "library_ms": own, "overhead_ms": both}


def resident_mb(process: subprocess.Popen[Any] | None) -> float | None:
    """Memory of the server that was started here."""
    if process is None:
        return None
    with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
        return round(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


@contextmanager
def started(url: str | None) -> Iterator[tuple[str, subprocess.Popen[Any] | None]]:
    """The address of a server, started here unless there is one."""
    if url:
        yield url, None
        return
    command = [sys.executable, "-m", "auricle.cli.main", "serve", "--port", "0", "--drain-seconds", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"ready at (\S+)", line):
                break
        else:
            sys.exit("the server ended before it was ready")
        # What it logs must be read, or it would wait for that.
        import threading

        threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()
        yield found[1], process
    finally:
        process.kill()
        process.wait()


async def measure(args: argparse.Namespace, url: str, process: subprocess.Popen[Any] | None) -> dict[str, Any]:
    """All levels, and at last the end of the server under load."""
    clips = make_clips(args.clips, args.long)
    result: dict[str, Any] = {**machine(), "clips": len(clips), "seconds": args.seconds, "levels": []}
    limits = httpx.Limits(max_connections=400)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        for number, clip in enumerate(clips):
            for verb in SHARES:
                status, _, clip.golden[verb] = await ask(client, verb, clip, number)
                assert status == 200, (verb, clip.name, status)
        result["overhead"] = await asyncio.to_thread(overhead, clips, url)
        alone = await closed_loop(client, clips, args.seconds / 2, 1)
        capacity = await closed_loop(client, clips, args.seconds / 2, BATCHED)
        result |= {"alone_per_s": round(alone, 2), "capacity_per_s": round(capacity, 2)}
        result["batching"] = round(capacity / alone, 2)
        for level in args.levels:
            done = await open_loop(client, clips, args.seconds, level * capacity, 1 + int(100 * level))
            found = {"level": level, **figures(done, args.seconds), "resident_mb": resident_mb(process)}
            result["levels"].append(found)
            print(json.dumps(found), file=sys.stderr)
        if args.soak:
            before = resident_mb(process)
            done = await open_loop(client, clips, args.soak, 0.8 * capacity, 7)
            result["soak"] = {**figures(done, args.soak), "resident_mb": [before, resident_mb(process)]}
        if process is not None:
            result["end"] = await ended(client, clips, capacity, process)
    return result


async def ended(client: httpx.AsyncClient, clips: list[Clip], capacity: float, process: Any) -> dict[str, Any]:
    """SIGTERM under load: requests that were in work must be answered; those that come later find nobody."""
    running = asyncio.create_task(open_loop(client, clips, 4.0, 0.8 * capacity, 9))
    await asyncio.sleep(2.0)
    at = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    done = await running
    code = await asyncio.to_thread(process.wait, 60)
    return {
        "code": code,
        "seconds": round(time.perf_counter() - at, 2),
        "wrong": sum(each.is_wrong for each in done),
    } | {"statuses": dict(Counter(str(each.status) for each in done))}


def main() -> None:
    """Measure and report."""
    parser = options(__doc__)
    parser.add_argument("--url", help="of a server that runs; else one is started")
    parser.add_argument("--seconds", type=float, default=60, help="of each level")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.5, 0.8, 1.0, 1.5, 3.0], help="times the capacity")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--long", action="store_true", help="five clips in a hundred last 1 to 10 minutes")
    parser.add_argument("--soak", type=float, default=0, help="seconds at 0.8 times the capacity")
    args = parser.parse_args()
    with started(args.url) as (url, process):
        result = asyncio.run(measure(args, url, process))
    write(result, args)


if __name__ == "__main__":
    main()
