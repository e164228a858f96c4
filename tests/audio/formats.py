"""Every container and codec that this machine can write, whole, behind tags, joined, with changes of rate and channels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile

SOUNDFILE = {
    "wav-s16": ("WAV", "PCM_16"), "wav-s24": ("WAV", "PCM_24"), "wav-f32": ("WAV", "FLOAT"), "wav-u8": ("WAV", "PCM_U8"),
    "wav-ulaw": ("WAV", "ULAW"), "wav-ima": ("WAV", "IMA_ADPCM"), "wav-ms": ("WAV", "MS_ADPCM"),
    "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"), "caf": ("CAF", "PCM_16"), "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"), "flac": ("FLAC", "PCM_16"), "flac24": ("FLAC", "PCM_24"),
    "vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
FFMPEG = {
    "mp2": ("mp2", "mp2"), "mp3-lame": ("mp3", "libmp3lame"), "aac": ("adts", "aac"), "ac3": ("ac3", "ac3"),
    "m4a-aac": ("ipod", "aac"), "m4a-alac": ("ipod", "alac"), "mp4-mp3": ("mp4", "libmp3lame"), "mov-pcm": ("mov", "pcm_s16le"),
    "mkv-aac": ("matroska", "aac"), "mkv-opus": ("matroska", "libopus"), "mkv-flac": ("matroska", "flac"),
    "mkv-pcm": ("matroska", "pcm_s16le"), "mkv-mp3": ("matroska", "libmp3lame"), "mkv-ac3": ("matroska", "ac3"),
    "webm-opus": ("webm", "libopus"), "webm-vorbis": ("webm", "libvorbis"),
    "oga-flac": ("ogg", "flac"), "oga-speex": ("ogg", "libspeex"), "oga-opus": ("ogg", "libopus"),
    "wav-mp3": ("wav", "libmp3lame"), "wav-mp2": ("wav", "mp2"), "wav-ac3": ("wav", "ac3"), "wav-aac": ("wav", "aac"),
    "wav-g722": ("wav", "g722"), "wav-yamaha": ("wav", "adpcm_yamaha"), "wav-g726": ("wav", "g726"),
    "wma": ("asf", "wmav2"), "wav-wma": ("wav", "wmav2"),
    "avi-mp3": ("avi", "libmp3lame"), "avi-ac3": ("avi", "ac3"), "flv-aac": ("flv", "aac"), "flv-mp3": ("flv", "libmp3lame"),
    "ts-aac": ("mpegts", "aac"), "ts-mp2": ("mpegts", "mp2"), "ts-ac3": ("mpegts", "ac3"),
    "caf-alac": ("caf", "alac"), "tta": ("tta", "tta"), "wavpack": ("wv", "wavpack"), "3gp-aac": ("3gp", "aac"),
    "aiff-av": ("aiff", "pcm_s16be"), "w64-av": ("w64", "pcm_s16le"), "flac-av": ("flac", "flac"),
}  # fmt: skip
JOINABLE = ("mp3", "mp3-lame", "mp2", "aac", "flac", "flac24", "flac-av", "vorbis", "opus", "oga-flac", "oga-speex")
DEMUXERS = {"aac": "aac", "mp2": "mp3", "mp3": "mp3", "mp3-lame": "mp3"}
LAYOUTS = {1: "mono", 2: "stereo"}
FRAME = {"mp2": 1152, "mp3": 1152, "mp3-lame": 1152, "aac": 2048}  # samples, and what FFmpeg trims around them


class Sound(NamedTuple):
    """One encoded sound."""

    codec: str
    rate: int
    channels: int
    seconds: float


class Case(NamedTuple):
    """One or more sounds, and the bytes around and between them."""

    name: str
    sounds: tuple[Sound, ...]
    before: bytes = b""
    between: bytes = b""
    after: bytes = b""

    @property
    def data(self) -> bytes:
        """The whole file."""
        return self.before + self.between.join(encoded(sound) for sound in self.sounds) + self.after


def tone(sound: Sound) -> np.ndarray:
    """(frames, channels): a tone that differs per channel."""
    at = np.arange(round(sound.seconds * sound.rate)) / sound.rate
    waves = [0.3 * np.sin(2 * np.pi * (310 + 70 * channel) * at) for channel in range(sound.channels)]
    return np.stack(waves, axis=1).astype(np.float32)


@lru_cache(maxsize=None)
def encoded(sound: Sound) -> bytes:
    """Encode with libsndfile or FFmpeg."""
    buffer = io.BytesIO()
    if sound.codec in SOUNDFILE:
        fmt, subtype = SOUNDFILE[sound.codec]
        soundfile.write(buffer, tone(sound), sound.rate, format=fmt, subtype=subtype)
        return buffer.getvalue()
    muxer, codec = FFMPEG[sound.codec]
    layout = LAYOUTS[sound.channels]
    with av.open(buffer, "w", format=muxer) as output:
        stream: Any = output.add_stream(codec, rate=sound.rate, layout=layout)
        stream.bit_rate = 64_000 if codec != "g726" else 32_000
        stream.codec_context.open()
        wanted = stream.codec_context.format.name
        packed = np.ascontiguousarray((tone(sound) * 32767).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts = sound.rate, 0
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=wanted, layout=layout, rate=sound.rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def decoded_s(data: bytes, codec: str = "") -> float:
    """Seconds that FFmpeg decodes of one file; it names the container itself where it has a signature."""
    total = 0.0
    with av.open(io.BytesIO(data), format=DEMUXERS.get(codec), metadata_errors="ignore") as opened:
        stream = opened.streams.audio[0]
        for packet in opened.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            total += sum(frame.samples / frame.sample_rate for frame in frames)
    return total


def id3v2(size: int) -> bytes:
    """A tag with ``size`` bytes of something like a picture."""
    body = np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8).tobytes()
    return b"ID3\x04\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + body


def apev2() -> bytes:
    """Header, one item and footer."""
    item = (5).to_bytes(4, "little") + bytes(4) + b"Title\0hello"
    size = len(item) + 32
    ends = [
        b"APETAGEX" + (2000).to_bytes(4, "little") + size.to_bytes(4, "little") + (1).to_bytes(4, "little")
        + flags.to_bytes(4, "little") + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    ]  # fmt: skip
    return ends[0] + item + ends[1]


ID3V1 = b"TAG" + b"A title".ljust(125, b"\0")
LYRICS = b"LYRICSBEGININD0000210LYR00005hello000041LYRICS200"
JUNK = bytes(range(1, 251)) * 3
BETWEEN: dict[str, bytes] = {
    "nothing": b"", "id3v1": ID3V1, "apev2": apev2(), "id3v2": id3v2(700), "lyrics": LYRICS + ID3V1, "zeros": bytes(3000),
    "junk": JUNK,
}  # fmt: skip
BEFORE: dict[str, bytes] = {"id3v2": id3v2(300), "cover": id3v2(60_000), "two tags": id3v2(50) + id3v2(9000)}


def _rates(codec: str) -> tuple[int, ...]:
    if "opus" in codec:
        return (48_000,)
    if "speex" in codec or "g722" in codec:
        return (16_000,)
    if "g726" in codec:
        return (8_000,)
    if "ac3" in codec:
        return (48_000, 32_000)
    return (44_100, 48_000, 16_000) if codec not in ("flv-mp3",) else (44_100,)


def _sounds(codec: str) -> Iterator[Sound]:
    for rate in _rates(codec):
        for channels in (1, 2):
            if not (codec in ("wav-g722", "wav-g726") and channels == 2):
                yield Sound(codec, rate, channels, 1.5)


def cases() -> Iterator[Case]:
    """All of them."""
    for codec in (*SOUNDFILE, *FFMPEG):
        for sound in _sounds(codec):
            yield Case(f"{codec} {sound.rate} {sound.channels}", (sound,))
    for codec in ("wav-s16", "flac", "vorbis", "aac", "mp3", "mp2", "aiff", "m4a-aac", "mp3-lame"):
        for name, tag in BEFORE.items():
            yield Case(f"{codec} behind {name}", (Sound(codec, 44_100, 2, 1.5),), before=tag)
    for codec in ("mp3", "mp2", "aac", "mp3-lame"):
        for name in ("zeros", "junk"):
            yield Case(f"{codec} behind {name}", (Sound(codec, 44_100, 1, 1.5),), before=BETWEEN[name])
    for codec in JOINABLE:
        rate = _rates(codec)[0]
        first = Sound(codec, rate, 1, 1.5)
        others = {"again": first, "other": Sound(codec, rate, 1, 1.0), "stereo": Sound(codec, rate, 2, 1.0)}
        if rate == 44_100:
            others["48k"] = Sound(codec, 48_000, 1, 1.0)
            others["16k"] = Sound(codec, 16_000, 2, 1.0)
        for kind, other in others.items():
            yield Case(f"{codec} + {kind}", (first, other))
            yield Case(f"{codec} + {kind} + first", (first, other, first))
            if codec in ("mp3", "mp3-lame", "mp2", "aac"):
                for name, tag in BETWEEN.items():
                    if tag:
                        yield Case(f"{codec} + {kind}, {name} between", (first, other), between=tag, after=ID3V1)


def check(case: Case, decode: Callable[[bytes], Any]) -> str:
    """What is wrong with the decoding of a case; empty: nothing.

    Each sound must be there as FFmpeg decodes it alone, within a frame at each of its ends.
    """
    data = case.data
    wanted = sum(decoded_s(encoded(sound), sound.codec) for sound in case.sounds)
    frame_s = sum(FRAME.get(sound.codec, 64) / sound.rate for sound in case.sounds)
    try:
        clip = decode(data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    facts = clip.facts
    found = len(clip.waveform) / 16_000
    problems = []
    if abs(found - wanted) > frame_s + 0.002:
        problems.append(f"{found:.3f} s of {wanted:.3f}")
    if facts.truncated or facts.damaged:
        problems.append(f"truncated {facts.truncated}, damaged {facts.damaged}")
    if facts.duration_s is None or abs(facts.duration_s - found) > 0.001:
        problems.append(f"states {facts.duration_s}")
    return "; ".join(problems)
