"""Container formats, recognised by content, never by a file name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from auricle.errors import BrokenAudio, UnsupportedFormat

HEAD_BYTES = 4096  # enough for every signature here, and to recognise text

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
    (b"RIFX", Container("wav", "soundfile")),
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
    (b"ADIF", Container("aac", "av", "aac")),
    (b"\x0b\x77", Container("ac3", "av", "ac3")),
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


def sniff(head: bytes, name: str) -> Container:
    """Name the container that starts with ``head`` (up to `HEAD_BYTES` bytes).

    Raises:
        BrokenAudio: no bytes at all.
        UnsupportedFormat: no signature of audio; the message says what the bytes look like.
    """
    if not head:
        raise BrokenAudio(f"{name}: is empty (0 bytes); expected audio. Record or download it again")
    found = _signature(head)
    if found is None:
        raise UnsupportedFormat(
            f"{name}: holds {_describe(head)}; expected wav, flac, ogg, opus, mp3, aiff or, "
            "with auricle[media], m4a, mp4, aac, webm, wma"
        )
    return found


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
    if kind[:3] == b"ID3":
        return _after_id3(head)
    if head[4:8] in _MP4_BOXES:
        return _MP4
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return _MPEG_TS
    return _mpeg_audio(head)


def _ogg(head: bytes) -> Container:
    first_packet = head[27 + head[26] :] if len(head) > 27 else b""
    known = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")
    return _OGG if not first_packet or first_packet.startswith(known) else _OGG_AV


def _after_id3(head: bytes) -> Container:
    """The container behind an ID3v2 tag where the head is long enough, else mp3, which most such tags belong to."""
    size = id3_size(head)
    return (_signature(head[size:]) if 0 < size < len(head) - 4 else None) or _MP3


def id3_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag at the start of ``head``, 0 if there is none (id3.org, ID3v2.4.0 §3.1)."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + (20 if head[5] & 0x10 else 10)


def _mpeg_audio(head: bytes) -> Container | None:
    """MPEG-1/2/2.5 audio (ISO 11172-3 §2.4.1.3) or AAC in ADTS: an 11 or 12 bit sync word, then legal fields."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return _ADTS
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    legal = version != 1 and layer != 0 and head[2] >> 4 != 15 and head[2] >> 2 & 3 != 3
    return _MP3 if legal else None


def _describe(head: bytes) -> str:
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
    if all(31 < byte < 127 or byte in b"\t\r\n" for byte in head):
        return "plain text"
    return f"bytes of no known audio format (they start with {head[:8].hex(' ')})"
