"""The notes of a Standard MIDI File, in seconds.

Only what a transcription needs is read: keys pressed and released, and the tempo. Pedals are not: a note ends where its
key is released. A file is untrusted: it is read in one pass, and every length in it is checked.

mido 1.3 agrees with this reader on sound files (a test compares them), but is not made for untrusted ones: a number
without end costs it quadratic time (13 s for 200 kB, hours for 4 MiB), it reads beyond the end of a track, and it
refuses chunks that the standard tells readers to skip.

Source: Standard MIDI Files 1.0, RP-001 (MIDI Manufacturers Association, 1996).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from auricle.errors import DataError

MAX_BYTES = 4 << 20  # the files of MAESTRO have 64 kB on average
MAX_SECONDS = 24 * 3600.0

_DEFAULT_TEMPO = 500_000  # us per quarter note where a file states none: 120 beats per minute
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}  # of a message, by the upper half of its status
_OFF, _ON = 0x8, 0x9
_SYSEX, _META, _TEMPO, _END = (0xF0, 0xF7), 0xFF, 0x51, 0x2F


class Note(NamedTuple):
    """A key, pressed and released."""

    onset_s: float
    offset_s: float
    key: int  # 0 … 127; a piano has 21 … 108, middle C is 60
    velocity: int  # 1 … 127


class _Event(NamedTuple):
    tick: int
    tempo: int  # us per quarter note; 0: a key went down, or up where velocity is 0
    place: tuple[int, int, int] = (0, 0, 0)  # track, channel, key
    velocity: int = 0


def read_notes(path: str | Path) -> list[Note]:
    """The notes of a file, by onset and key.

    A key that is pressed again before its release ends its first note; one that is never released ends with its track.

    Raises:
        DataError: no such file, not a MIDI file, truncated, larger than 4 MiB, longer than a day, with independent
            patterns (format 2) or timed in video frames.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            stored = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); expected a MIDI file") from None
    try:
        if len(stored) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        return sorted(_notes(*_events(stored)), key=lambda note: (note.onset_s, note.key))
    except IndexError:
        raise DataError(f"{path} is no usable MIDI file: it is truncated; download it again") from None
    except ValueError as error:
        raise DataError(f"{path} is no usable MIDI file: {error}") from None


def _notes(events: list[_Event], ticks_per_quarter: int) -> Iterator[Note]:
    """Notes by offset."""
    time_s, now, tick_s = 0.0, 0, _DEFAULT_TEMPO * 1e-6 / ticks_per_quarter
    sounding: dict[tuple[int, int, int], tuple[int, float, int, bool]] = {}
    for tick, tempo, place, velocity in events:
        time_s, now = time_s + (tick - now) * tick_s, tick
        if time_s > MAX_SECONDS:
            raise ValueError(f"it lasts longer than {MAX_SECONDS:,.0f} s")
        if tempo:
            tick_s = tempo * 1e-6 / ticks_per_quarter
            continue
        pressed = sounding.get(place)
        if pressed and not velocity and pressed[0] == tick and pressed[3]:
            continue  # the late release of the note that this one ended
        if pressed:
            yield Note(pressed[1], time_s, place[2], pressed[2])
            del sounding[place]
        if velocity:
            sounding[place] = (tick, time_s, velocity, pressed is not None)
    yield from (Note(onset_s, onset_s, place[2], velocity) for place, (_, onset_s, velocity, _) in sounding.items())


def _events(stored: bytes) -> tuple[list[_Event], int]:
    """Events of all tracks by tick, and ticks in a quarter note."""
    chunks = list(_chunks(stored))
    kind, header = chunks[0] if chunks else (b"", b"")
    if kind != b"MThd" or len(header) < 6:
        raise ValueError("it does not start with a header (MThd)")
    layout, ticks = int.from_bytes(header[:2], "big"), int.from_bytes(header[4:6], "big")
    if layout > 1 or not 0 < ticks < 0x8000:  # with the upper bit set it counts video frames
        raise ValueError(
            f"format {layout} with time division {ticks}; expected format 0 or 1, in ticks of a quarter note"
        )
    tracks = (track for kind, track in chunks if kind == b"MTrk")
    events = [event for number, track in enumerate(tracks) for event in _track(number, track)]
    return sorted(events, key=lambda event: event.tick), ticks


def _chunks(stored: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place < len(stored):
        body = place + 8
        end = body + int.from_bytes(_cut(stored, place + 4, body), "big")
        yield stored[place : place + 4], _cut(stored, body, end)
        place = end


def _track(number: int, track: bytes) -> Iterator[_Event]:
    place = tick = status = 0
    keys: dict[tuple[int, int, int], None] = {}
    while place < len(track):
        delta, place = _quantity(track, place)
        tick += delta
        if track[place] >= 0x80:
            status, place = track[place], place + 1
        if status == _META or status in _SYSEX:
            kind, place = (track[place], place + 1) if status == _META else (None, place)
            size, place = _quantity(track, place)
            contents, place, status = _cut(track, place, place + size), place + size, 0  # no running status after it
            if kind == _TEMPO and any(contents):
                yield _Event(tick, int.from_bytes(contents[:3], "big"))
            elif kind == _END:
                break
            continue
        command, size = status >> 4, _DATA_BYTES.get(status >> 4, 0)
        message, place = _cut(track, place, place + size), place + size
        if not message or max(message) >= 0x80:
            raise ValueError(f"byte {place} of track {number} belongs to no message")
        if command in (_OFF, _ON):
            key = (number, status & 0xF, message[0])
            keys[key] = None
            yield _Event(tick, 0, key, message[1] if command == _ON else 0)
    yield from (_Event(tick, 0, key) for key in keys)  # released here at the latest


def _quantity(track: bytes, place: int) -> tuple[int, int]:
    """A number of up to four bytes of seven bits, and the place behind it."""
    value = 0
    for end in range(place, place + 4):
        value = value << 7 | track[end] & 0x7F
        if track[end] < 0x80:
            return value, end + 1
    raise ValueError(f"byte {place} of a track starts a number of more than four bytes")


def _cut(stored: bytes, start: int, end: int) -> bytes:
    if end > len(stored):
        raise IndexError
    return stored[start:end]
