import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auricle.data import midi
from auricle.data.midi import Note, read_notes
from auricle.errors import DataError

END = b"\x00\xff\x2f\x00"


def quantity(value):
    """A number as MIDI writes it: seven bits a byte, the last without the upper bit."""
    stored = bytes([value & 0x7F])
    while value := value >> 7:
        stored = bytes([value & 0x7F | 0x80]) + stored
    return stored


def chunk(kind, body):
    return kind + len(body).to_bytes(4, "big") + body


def song(*tracks, ticks=480, layout=None):
    layout = (len(tracks) > 1) if layout is None else layout
    header = b"".join(number.to_bytes(2, "big") for number in (layout, len(tracks), ticks))
    return chunk(b"MThd", header) + b"".join(chunk(b"MTrk", track + END) for track in tracks)


def tempo(delta, us):
    return quantity(delta) + b"\xff\x51\x03" + us.to_bytes(3, "big")


def read(tmp_path, stored):
    (tmp_path / "a.midi").write_bytes(stored)
    return read_notes(tmp_path / "a.midi")


def test_notes_are_timed_by_the_tempo(tmp_path):
    # 480 ticks a quarter; 0.5 s each, then 1 s.
    track = b"\x00\x90\x3c\x40" + quantity(480) + b"\x80\x3c\x00"
    track += tempo(0, 1_000_000) + b"\x00\x90\x40\x50" + quantity(240) + b"\x80\x40\x7f"
    assert read(tmp_path, song(track)) == [Note(0.0, 0.5, 60, 64), Note(0.5, 1.0, 64, 80)]


def test_the_tempo_of_one_track_holds_for_all(tmp_path):
    slow = tempo(0, 2_000_000)
    notes = quantity(480) + b"\x93\x3c\x40" + quantity(480) + b"\x83\x3c\x00"
    assert read(tmp_path, song(slow, notes)) == [Note(2.0, 4.0, 60, 64)]


def test_running_status_and_silent_presses(tmp_path):
    track = b"\x00\x90\x3c\x40" + quantity(480) + b"\x3e\x41" + quantity(480) + b"\x3c\x00" + b"\x00\x3e\x00"
    assert read(tmp_path, song(track)) == [Note(0.0, 1.0, 60, 64), Note(0.5, 1.0, 62, 65)]


def test_what_is_no_note_is_passed_over(tmp_path):
    other = (
        b"\x00\xff\x01\x05hello"
        + b"\x00\xf0\x03\x01\x02\xf7"
        + b"\x00\xb0\x40\x7f"
        + b"\x00\xc0\x05"
        + b"\x00\xe0\x00\x40"
    )
    track = other + b"\x00\x90\x3c\x40" + quantity(480) + b"\xa0\x3c\x22" + b"\x00\x80\x3c\x00"
    stored = song(track)
    assert read(tmp_path, stored[:14] + chunk(b"Cue ", b"\x90\x3c") + stored[14:]) == [Note(0.0, 0.5, 60, 64)]


def test_a_key_sounds_once_at_a_time(tmp_path):
    press = b"\x90\x3c\x40"
    # Pressed twice: the first note ends; the second is released.
    twice = b"\x00" + press + quantity(480) + b"\x90\x3c\x50" + quantity(480) + b"\x80\x3c\x00"
    assert read(tmp_path, song(twice)) == [Note(0.0, 0.5, 60, 64), Note(0.5, 1.0, 60, 80)]
    # The release of the first note is written behind the second press, at the same time.
    late = b"\x00" + press + quantity(480) + b"\x90\x3c\x50" + b"\x00\x80\x3c\x00" + quantity(480) + b"\x80\x3c\x00"
    assert read(tmp_path, song(late)) == [Note(0.0, 0.5, 60, 64), Note(0.5, 1.0, 60, 80)]
    # Never released: it ends with the track.
    held = b"\x00" + press + quantity(960) + b"\xb0\x40\x00"
    assert read(tmp_path, song(held)) == [Note(0.0, 1.0, 60, 64)]
    # The same key of two tracks is two keys.
    one, two = (quantity(wait) + press + quantity(480) + b"\x80\x3c\x00" for wait in (0, 240))
    assert read(tmp_path, song(one, two)) == [Note(0.0, 0.5, 60, 64), Note(0.25, 0.75, 60, 64)]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"", "does not start with a header"),
        (b"RIFF\x00\x00\x00\x00", "does not start with a header"),
        (chunk(b"MThd", b"\x00\x00"), "does not start with a header"),
        (song(b"", layout=2), "format 2"),
        (song(b"", ticks=0), "time division 0"),
        (song(b"", ticks=0xE728), "expected format 0 or 1, in ticks of a quarter note"),
        (song(b"\x00\x90\x3c\x40")[:-6], "is truncated"),
        (song(b"")[:-8] + b"\xff\xff\xff\xff" + END, "is truncated"),
        (song(b"\x00\x3c\x40"), "belongs to no message"),
        (song(b"\x00\xf5"), "belongs to no message"),
        (song(b"\x00\x90\x3c\xc0"), "belongs to no message"),
        (song(b"\xff\xff\xff\xff\x00\x90\x3c\x40"), "number of more than four bytes"),
        (song(b"\x00\xff\x01\x7f"), "is truncated"),
        (song(tempo(0, 16_000_000) + b"\xff\xff\xff\x7f\x90\x3c\x40", ticks=1), "lasts longer than 86,400 s"),
    ],
)
def test_a_file_that_is_no_song_is_refused(tmp_path, stored, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, stored)


def test_a_large_or_missing_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"cannot read .*gone\.midi"):
        read_notes(tmp_path / "gone.midi")
    monkeypatch.setattr(midi, "MAX_BYTES", 20)
    with pytest.raises(DataError, match="larger than 20 bytes"):
        read(tmp_path, song(b""))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 127), st.integers(1, 127), st.integers(1, 900)), max_size=12
    )
)
def test_notes_that_were_written_are_read(tmp_path, wanted):
    """Notes one after the other, in ticks of 1 ms."""
    track, now, notes = b"", 0, []
    for wait, key, velocity, length in wanted:
        track += quantity(wait) + bytes([0x90, key, velocity]) + quantity(length) + bytes([0x90, key, 0])
        notes.append((now + wait, now + wait + length, key, velocity))
        now += wait + length
    found = read(tmp_path, song(track, ticks=500))
    assert [(round(n.onset_s * 1000), round(n.offset_s * 1000), n.key, n.velocity) for n in found] == notes


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_end_in_notes_or_an_error(tmp_path, stored, as_track):
    try:
        notes = read(tmp_path, song(stored) if as_track else stored)
    except DataError:
        return
    assert all(0 <= note.onset_s <= note.offset_s <= midi.MAX_SECONDS and 0 <= note.key < 128 for note in notes)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 15),
            st.lists(st.tuples(st.integers(0, 999), st.integers(0, 7), st.integers(1, 127), st.integers(1, 999))),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda track: track[0],
    ),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 2_000_000)), max_size=5),
    st.integers(1, 0x7FFF),
)
def test_mido_reads_the_same_notes(tmp_path, tracks, tempos, ticks):
    """An independent writer and reader: tracks of one channel each, with what is no note between the notes."""
    mido = pytest.importorskip("mido")
    written = mido.MidiFile(type=1, ticks_per_beat=ticks)
    written.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", time=at, tempo=us) for at, us in tempos]))
    for channel, notes in tracks:
        track = mido.MidiTrack([mido.MetaMessage("track_name", name="piano"), mido.Message("sysex", data=(1, 2))])
        for wait, key, velocity, length in notes:
            track.append(mido.Message("note_on", channel=channel, note=8 * channel + key, velocity=velocity, time=wait))
            track.append(mido.Message("control_change", channel=channel, control=64, value=127))
            track.append(mido.Message("note_off", channel=channel, note=8 * channel + key, velocity=64, time=length))
        written.tracks.append(track)
    written.save(tmp_path / "a.midi")
    now, pressed, expected = 0.0, {}, []
    for message in mido.MidiFile(tmp_path / "a.midi"):
        now += message.time
        if message.type == "note_on":
            pressed[message.channel] = (now, message.velocity)
        elif message.type == "note_off":
            onset_s, velocity = pressed.pop(message.channel)
            expected.append((onset_s, now, message.note, velocity))
    found = read_notes(tmp_path / "a.midi")
    in_order = [sorted(notes, key=lambda note: (note[2], *note[:2])) for notes in (found, expected)]  # of each track
    assert in_order[0] == [pytest.approx(note, rel=1e-9, abs=1e-9) for note in in_order[1]]
