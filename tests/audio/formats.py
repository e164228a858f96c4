"""Every container and codec that can be written here: whole, behind tags, joined, of changing rate and channels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile
import soxr

SOUNDFILE = {
    "wav-s16": ("WAV", "PCM_16"), "wav-s24": ("WAV", "PCM_24"), "wav-f32": ("WAV", "FLOAT"),
    "wav-u8": ("WAV", "PCM_U8"),
    "wav-ulaw": ("WAV", "ULAW"), "wav-ima": ("WAV", "IMA_ADPCM"), "wav-ms": ("WAV", "MS_ADPCM"),
    "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"), "caf": ("CAF", "PCM_16"), "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"), "flac": ("FLAC", "PCM_16"), "flac24": ("FLAC", "PCM_24"),
    "vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
    "mp3-vbr": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
FFMPEG = {
    "mp2": ("mp2", "mp2"), "mp3-lame": ("mp3", "libmp3lame"), "aac": ("adts", "aac"), "ac3": ("ac3", "ac3"),
    "m4a-aac": ("ipod", "aac"), "m4a-alac": ("ipod", "alac"), "mp4-mp3": ("mp4", "libmp3lame"),
    "mov-pcm": ("mov", "pcm_s16le"),
    "mkv-aac": ("matroska", "aac"), "mkv-opus": ("matroska", "libopus"), "mkv-flac": ("matroska", "flac"),
    "mkv-pcm": ("matroska", "pcm_s16le"), "mkv-mp3": ("matroska", "libmp3lame"), "mkv-ac3": ("matroska", "ac3"),
    "webm-opus": ("webm", "libopus"), "oga-flac": ("ogg", "flac"), "oga-opus": ("ogg", "libopus"),
    "wav-mp3": ("wav", "libmp3lame"), "wav-mp2": ("wav", "mp2"), "wav-ac3": ("wav", "ac3"),
    "wav-g722": ("wav", "g722"), "wav-yamaha": ("wav", "adpcm_yamaha"), "wav-g726": ("wav", "g726"),
    "wma": ("asf", "wmav2"), "wav-wma": ("wav", "wmav2"),
    "avi-mp3": ("avi", "libmp3lame"), "avi-ac3": ("avi", "ac3"), "flv-aac": ("flv", "aac"),
    "flv-mp3": ("flv", "libmp3lame"),
    "ts-aac": ("mpegts", "aac"), "ts-mp2": ("mpegts", "mp2"), "ts-ac3": ("mpegts", "ac3"),
    "caf-alac": ("caf", "alac"), "tta": ("tta", "tta"), "wavpack": ("wv", "wavpack"), "3gp-aac": ("3gp", "aac"),
    "aiff-av": ("aiff", "pcm_s16be"), "w64-av": ("w64", "pcm_s16le"), "flac-av": ("flac", "flac"),
}  # fmt: skip
FAMILIES = (("mp3", "mp3-vbr", "mp3-lame", "mp2", "aac"), ("flac", "flac24", "flac-av"), ("vorbis", "opus", "oga-flac"))
DEMUXERS = {"aac": "aac", "mp2": "mp3", "mp3": "mp3", "mp3-vbr": "mp3", "mp3-lame": "mp3"}
LAYOUTS = {1: "mono", 2: "stereo"}
# Samples of a frame: by so much may FFmpeg and we differ at the ends of a sound, where encoders pad it.
FRAME = {"mp2": 1152, "mp3": 1152, "mp3-vbr": 1152, "mp3-lame": 1152, "aac": 1024, "vorbis": 1024}


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


def noise(sound: Sound) -> np.ndarray:
    """(frames, channels): noise below 3.4 kHz, which is at every moment unlike itself at any other."""
    generator = np.random.default_rng(round(1000 * sound.seconds) + sound.channels)
    waves = 0.1 * generator.standard_normal((round(sound.seconds * 8000), sound.channels)) + 0.05
    resampled = soxr.resample(waves[:, :1] + 0.3 * waves, 8000, sound.rate, quality="HQ")
    return np.ascontiguousarray(resampled, np.float32)


@cache
def encoded(sound: Sound) -> bytes:
    """Encode with libsndfile or FFmpeg."""
    buffer = io.BytesIO()
    if sound.codec in SOUNDFILE:
        fmt, subtype = SOUNDFILE[sound.codec]
        how = {"bitrate_mode": "VARIABLE", "compression_level": 0.6} if sound.codec == "mp3-vbr" else {}
        soundfile.write(buffer, noise(sound), sound.rate, format=fmt, subtype=subtype, **how)
        return buffer.getvalue()
    muxer, codec = FFMPEG[sound.codec]
    layout = LAYOUTS[sound.channels]
    with av.open(buffer, "w", format=muxer) as output:
        stream: Any = output.add_stream(codec, rate=sound.rate, layout=layout)
        stream.bit_rate = 64_000 if codec != "g726" else 32_000
        stream.codec_context.open()
        wanted = stream.codec_context.format.name
        packed = np.ascontiguousarray((noise(sound) * 32767).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts = sound.rate, 0
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=wanted, layout=layout, rate=sound.rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return buffer.getvalue()


class Decoded(NamedTuple):
    """What FFmpeg decodes of a file."""

    seconds: float
    errors: int


def decoded(data: bytes, codec: str = "") -> Decoded:
    """Decode one file by FFmpeg; it names the container itself where it has a signature."""
    total, errors = 0.0, 0
    with av.open(io.BytesIO(data), format=DEMUXERS.get(codec), metadata_errors="ignore") as opened:
        packets = opened.demux(opened.streams.audio[0])
        try:
            for packet in packets:
                try:
                    total += sum(frame.samples / frame.sample_rate for frame in packet.decode())
                except av.FFmpegError:
                    errors += 1
        except av.FFmpegError:  # chains of several layouts
            errors += 1
    return Decoded(total, errors)


@cache
def decoded_alone(sound: Sound) -> Decoded:
    """What FFmpeg decodes of one sound."""
    return decoded(encoded(sound), sound.codec)


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
    "nothing": b"", "id3v1": ID3V1, "apev2": apev2(), "id3v2": id3v2(700), "lyrics": LYRICS + ID3V1,
    "zeros": bytes(3000), "junk": JUNK,
}  # fmt: skip
BEFORE: dict[str, bytes] = {"id3v2": id3v2(300), "cover": id3v2(60_000), "two tags": id3v2(50) + id3v2(9000)}


def _rates(codec: str) -> tuple[int, ...]:
    if "opus" in codec:
        return (48_000,)
    if "g722" in codec:
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
    for codec in ("flac", "vorbis", "aac", "mp3", "mp2", "mp3-lame"):
        for name, tag in BEFORE.items():
            yield Case(f"{codec} behind {name}", (Sound(codec, 44_100, 2, 1.5),), before=tag)
    for codec in ("mp3", "mp2", "aac", "mp3-lame"):
        for name in ("zeros", "junk"):
            yield Case(f"{codec} behind {name}", (Sound(codec, 44_100, 1, 1.5),), before=BETWEEN[name])
    for family in FAMILIES:
        for codec in family:
            yield from _joined(codec, family)


def _joined(codec: str, family: tuple[str, ...]) -> Iterator[Case]:
    rate = _rates(codec)[0]
    first = Sound(codec, rate, 1, 1.5)
    others = {"again": first, "other": Sound(codec, rate, 1, 1.0), "stereo": Sound(codec, rate, 2, 1.0)}
    if rate == 44_100:
        others["48k"] = Sound(codec, 48_000, 1, 1.0)
        others["16k"] = Sound(codec, 16_000, 2, 1.0)
    others.update({other: Sound(other, _rates(other)[-1], 2, 1.0) for other in family if other != codec})
    for kind, other in others.items():
        yield Case(f"{codec} + {kind}", (first, other))
        yield Case(f"{codec} + {kind} + first", (first, other, first))
        for name, tag in BETWEEN.items():
            if tag and family is FAMILIES[0]:
                yield Case(f"{codec} + {kind}, {name} between", (first, other), between=tag, after=ID3V1)


def check(case: Case, decode: Callable[..., Any]) -> str:
    """What is wrong with the decoding of a case; empty: nothing.

    Each sound must be there as FFmpeg decodes it alone, or all as it decodes the whole file, within a frame for each.
    """
    data = case.data
    alone = [decoded_alone(sound) for sound in case.sounds]
    wanted = [sum(each.seconds for each in alone)]
    if len(case.sounds) > 1:
        wanted.append(decoded(data, case.sounds[0].codec).seconds)
    frame_s = sum(FRAME.get(sound.codec, 64) / sound.rate for sound in case.sounds) + 0.002
    try:
        clip = decode(data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    facts = clip.facts
    found = len(clip.waveform) / 16_000
    problems = []
    if not any(abs(found - seconds) <= frame_s for seconds in wanted) or found < wanted[0] - frame_s:
        problems.append(f"{found:.3f} s; FFmpeg alone and joined {wanted}")
    if facts.truncated or (facts.damaged and not any(each.errors for each in alone)):
        problems.append(f"truncated {facts.truncated}, damaged {facts.damaged}")
    if facts.duration_s is None or abs(facts.duration_s - found) > 0.001:
        problems.append(f"states {facts.duration_s}")
    for start_s in (0.4, found - 0.6):
        lag = _lag(clip.waveform, decode(data, start_s=start_s, stop_s=start_s + 0.3).waveform, round(start_s * 16_000))
        if abs(lag) > 24:  # matroska rounds its time stamps to 1 ms
            problems.append(f"the range from {start_s:.2f} s is {lag / 16:.1f} ms off")
    return "; ".join(problems)


def _lag(whole: np.ndarray, part: np.ndarray, at: int) -> int:
    """Samples by which a range lies beside its place in the whole."""
    core = part[400:-400]
    start = max(0, at - 4000)
    near = whole[start : at + 400 + len(core) + 4000].astype(np.float64)
    likeness = np.correlate(near, core.astype(np.float64), mode="valid")
    power = np.sqrt(np.convolve(near**2, np.ones(len(core)), mode="valid"))
    return int(np.argmax(likeness / (power + 1e-9))) + start - at - 400
