"""Container formats, recognised by content, never by a file name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Literal

from auricle.audio import flac, mpeg
from auricle.errors import BrokenAudio, UnsupportedFormat

HEAD_BYTES = 4096  # enough for every signature here, and to recognise text
_JUNK_BYTES = 1 << 20  # before the first frame of MPEG audio
_MOST_TAGS = 16  # before or behind the audio; real files have one or two
_TAGGED_BEHIND = frozenset(("flac", "wavpack", "ape", "tta", "musepack"))  # decoders take such a tag for damage

_W64 = b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"


@dataclass(frozen=True, slots=True)
class Container:
    """A container format, the backend that tries it first, and FFmpeg's name of its demuxer ('': none)."""

    name: str
    backend: Literal["soundfile", "av"]
    demuxer: str = ""


_PREFIXES: tuple[tuple[bytes, Container], ...] = (
    (b"fLaC", Container("flac", "soundfile", "flac")),
    (b".snd", Container("au", "soundfile", "au")),
    (b"caff\x00\x01", Container("caf", "soundfile", "caf")),
    (b"RF64", Container("rf64", "soundfile", "wav")),
    (b"BW64", Container("bw64", "av", "wav")),
    (b"RIFX", Container("wav", "soundfile", "wav")),
    (_W64, Container("w64", "soundfile", "w64")),
    (b"NIST_1A", Container("nist", "soundfile", "nistsphere")),
    (b"Creative Voice File", Container("voc", "soundfile", "voc")),
    (b"\x1a\x45\xdf\xa3", Container("matroska", "av", "matroska")),
    (_ASF, Container("asf", "av", "asf")),
    (b"#!AMR", Container("amr", "av", "amr")),
    (b"FLV\x01", Container("flv", "av", "flv")),
    (b"wvpk", Container("wavpack", "av", "wv")),
    (b"MAC ", Container("ape", "av", "ape")),
    (b"TTA1", Container("tta", "av", "tta")),
    (b"MP+", Container("musepack", "av", "mpc")),
    (b"MPCK", Container("musepack", "av", "mpc8")),
    (b"ADIF", Container("aac", "av", "aac")),
    (b"\x0b\x77", Container("ac3", "av", "ac3")),
    (b"\x7f\xfe\x80\x01", Container("dts", "av", "dts")),
)
_RIFF_FORMS = {
    b"WAVE": Container("wav", "soundfile", "wav"),
    b"AVI ": Container("avi", "av", "avi"),
}
_IFF_FORMS = {
    b"AIFF": Container("aiff", "soundfile", "aiff"),
    b"AIFC": Container("aiff", "soundfile", "aiff"),
    b"8SVX": Container("svx", "soundfile", "iff"),
}
_MP4 = Container("mp4", "av", "mov")
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_OGG = Container("ogg", "soundfile", "ogg")
_OGG_AV = Container("ogg", "av", "ogg")
_MP3 = Container("mp3", "soundfile", "mp3")
_ADTS = Container("aac", "av", "aac")
_MPEG_TS = Container("mpegts", "av", "mpegts")

_NOT_AUDIO: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"MThd", "a MIDI score, which holds notes and no audio"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
    (b"#EXTM3U", "a playlist"),
)


def sniff(file: BinaryIO, size: int, name: str) -> tuple[Container, int]:
    """Name the container of a file of ``size`` bytes, and the byte it starts at, behind tags and junk.

    Raises:
        BrokenAudio: no bytes at all.
        UnsupportedFormat: no signature of audio; the message says what the bytes look like.
    """
    file.seek(0)
    head = start = file.read(HEAD_BYTES)
    if not head:
        raise BrokenAudio(f"{name}: is empty (0 bytes); expected audio. Record or download it again")
    at = 0
    for _ in range(_MOST_TAGS):
        if not (tag := id3_size(start)):
            break
        at += tag
        file.seek(at)
        start = file.read(HEAD_BYTES)
    found = _signature(start)
    if found is not None:
        return found, at
    if _what(head) is None and (frame := mpeg.first_frame(file, size, at, _JUNK_BYTES)):
        return (_ADTS if frame[1].is_aac else _MP3), frame[0]
    if at:  # most such tags belong to an mp3
        return _MP3, 0
    raise UnsupportedFormat(
        f"{name}: holds {_describe(head)}; expected wav, flac, ogg, opus, mp3, aiff or, "
        "with auricle[media], m4a, mp4, aac, webm, wma"
    )


def _signature(head: bytes) -> Container | None:
    for prefix, container in _PREFIXES:
        if head.startswith(prefix):
            return container
    kind, form = head[:4], head[8:12]
    if kind == b"RIFF":
        return _RIFF_FORMS.get(form)
    if kind == b"FORM":
        return _IFF_FORMS.get(form)
    if kind == b"OggS":
        return _ogg(head)
    if head[4:8] in _MP4_BOXES:
        return _MP4
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return _MPEG_TS
    return _mpeg_audio(head)


def _ogg(head: bytes) -> Container:
    first_packet = head[27 + head[26] :] if len(head) > 27 else b""
    known = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")
    return _OGG if not first_packet or first_packet.startswith(known) else _OGG_AV


def id3_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag at the start of ``head``, 0 if there is none (id3.org, ID3v2.4.0 §3.1)."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + (20 if head[5] & 0x10 else 10)


def audio_end(file: BinaryIO, size: int, container: Container) -> int:
    """Where the audio of a file of ``size`` bytes ends: before the ID3v1 and APE tags that stand behind it."""
    for _ in range(_MOST_TAGS if container.name in _TAGGED_BEHIND else 0):
        file.seek(max(size - 128, 0))
        tail = file.read(min(size, 128))
        if len(tail) == 128 and tail.startswith(b"TAG"):
            tag = 128
        elif tail[-32:-24] == b"APETAGEX":
            footer = tail[-32:]  # its length counts the footer, and not the header that bit 31 of the flags announces
            tag = int.from_bytes(footer[12:16], "little") + 32 * (footer[23] >> 7)
        else:
            break
        if not 32 <= tag < size:
            break
        size -= tag
    return size


def _mpeg_audio(head: bytes) -> Container | None:
    """MPEG audio or AAC in ADTS by its first header and the one behind it; FLAC frames without a header of the file."""
    header = mpeg.read_header(head[:6])
    if header is not None:
        follower = head[header.length : header.length + 6]
        if len(follower) < 6 or mpeg.read_header(follower) is not None:
            return _ADTS if header.is_aac else _MP3
    if flac.read_header(head[:32]) is not None:
        return Container("flac", "av", "flac")
    return _MP3 if _is_free_format(head) else None


def _is_free_format(head: bytes) -> bool:
    """An MPEG header without a bit rate, so that the length of its frames is not stated."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE2:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return version != 1 and layer != 0 and head[2] >> 4 == 0 and head[2] >> 2 & 3 != 3


def _what(head: bytes) -> str | None:
    """What is certainly no audio."""
    for prefix, what in _NOT_AUDIO:
        if head.startswith(prefix):
            return what
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "an HTML page (a failed download?)"
    if text.startswith(b"<"):
        return "XML or HTML text"
    if text.startswith((b"{", b"[")):
        return "JSON text"
    return "plain text" if all(31 < byte < 127 or byte in b"\t\r\n" for byte in head) else None


def _describe(head: bytes) -> str:
    return _what(head) or f"bytes of no known audio format (they start with {head[:8].hex(' ')})"
