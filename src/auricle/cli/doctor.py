"""The verb that checks the installation: doctor."""

from __future__ import annotations

import io
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from auricle.cli.options import FAILED, AsJson
from auricle.cli.output import print_result
from auricle.cores import granted_cores

_PACKAGES = ("torch", "numpy", "soundfile", "soxr", "safetensors", "huggingface-hub", "transformers", "av", "pyarrow")
_TONE_HZ = 440
_CORE = {"wav": "WAV", "flac": "FLAC", "aiff": "AIFF", "ogg": "OGG", "opus": "OGG", "mp3": "MP3"}  # libsndfile's names
_SUBTYPES = {"ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}
_MEDIA = {"m4a": ("mp4", "aac"), "aac": ("adts", "aac"), "webm": ("webm", "libopus"), "wma": ("asf", "wmav2")}


def doctor(as_json: AsJson = False) -> None:
    """Check the installation.

    Lists packages, devices and models, and encodes and decodes a tone in each format. Exit code 1 if a format of the
    core installation fails.

    Example: auricle doctor
    """
    facts = examine()
    print_result(facts, _lines(facts), as_json=as_json)
    if not facts["ok"]:
        raise typer.Exit(FAILED)


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    for topic, found in facts.items():
        if isinstance(found, dict):
            yield f"{topic}:"
            yield from (f"  {key:18} {value}" for key, value in found.items())
        else:
            yield f"{topic}: {found}"


def examine() -> dict[str, Any]:
    """All facts that `doctor` reports; ``ok``: all core formats work."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from auricle.weights.catalog import entries, is_ready

    formats = {name: _attempt(_core_file, name) for name in _CORE}
    needed = all(state == "ok" for state in formats.values())
    has_media = _version("av") is not None
    absent = "needs auricle[media]"
    formats |= {name: _attempt(_media_file, name) if has_media else absent for name in _MEDIA}
    return {
        "ok": needed,
        "auricle": _version("auricle"),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "packages": {name: _version(name) or "absent" for name in _PACKAGES},
        "formats": formats,
        "threads": {"torch": torch.get_num_threads(), "cores": granted_cores()},
        "devices": _devices(),
        "memory_free_gb": _free_memory_gb(),
        "cache": str(HF_HUB_CACHE),
        "models": {entry.name: "ready" if is_ready(entry) else "absent" for entry in entries()},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _attempt(encode: Callable[[str], bytes], name: str) -> str:
    """Encode a tone, decode it like a user's file, and compare."""
    import numpy as np

    from auricle.audio.decode import decode

    try:
        clip = decode(encode(name))
        spectrum = np.abs(np.fft.rfft(clip.waveform))
        loudest_hz = float(np.argmax(spectrum)) * 16_000 / len(clip.waveform)
    except Exception as error:  # any fault of a codec is reported
        return f"{type(error).__name__}: {error}"
    if abs(loudest_hz - _TONE_HZ) > 5 or abs(len(clip.waveform) / 16_000 - 1) > 0.15:
        return f"decoded wrongly: {loudest_hz:.0f} Hz, {len(clip.waveform) / 16_000:.2f} s"
    return "ok"


def _tone(rate: int) -> Any:
    import numpy as np

    return (0.5 * np.sin(2 * np.pi * _TONE_HZ * np.arange(rate) / rate)).astype(np.float32)


def _core_file(name: str) -> bytes:
    import soundfile

    rate = 48_000
    file = io.BytesIO()
    soundfile.write(file, _tone(rate), rate, format=_CORE[name], subtype=_SUBTYPES.get(name))
    return file.getvalue()


def _media_file(name: str) -> bytes:
    import av

    rate = 48_000
    container, codec = _MEDIA[name]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout="mono", bit_rate=64_000)
        frame = av.AudioFrame.from_ndarray(_tone(rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format.name, "mono", rate, frame_size=stream.codec_context.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(piece))
    return file.getvalue()


def _devices() -> dict[str, str]:
    import torch

    devices = {"cpu": torch.backends.cpu.get_cpu_capability()}
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        devices[f"cuda:{number}"] = f"{facts.name}, {facts.total_memory / 1e9:.0f} GB"
    return devices


def _free_memory_gb() -> float | None:
    """Memory available to programs (more than the unused memory); Linux only."""
    if sys.platform != "linux":
        return None
    with open("/proc/meminfo", encoding="ascii") as file:
        kib = next((int(line.split()[1]) for line in file if line.startswith("MemAvailable:")), None)
    return None if kib is None else round(kib * 1024 / 1e9, 1)
