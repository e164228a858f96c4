"""Data sets as their authors publish them: a folder → entries with labels and splits.

A layout is a function of the folder described in its docstring. Its entries have the label under the name that the
benchmark tasks use, and ``split`` (train, valid, test) or ``fold`` where the authors, or the task, have one. Tables and
names are read, audio is not. Splits that are made here, because the authors give none, keep speakers or neighbouring
recordings together and depend on names alone. All public tasks of X-ARES have a layout here.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from auricle.data import recipes
from auricle.data.manifest import Entry, read_manifest
from auricle.data.midi import read_notes
from auricle.data.upstream_speech import (
    asvspoof2015,
    fluent_speech_commands,
    vocal_imitations,
    voxceleb1,
    voxlingua107,
)
from auricle.data.upstream_tables import inside, named_audio, read_json_object, read_lines, read_rows, read_table
from auricle.errors import ConfigError, DataError

_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # RAVDESS 01 to 08
_ROLES = {"training": "train", "validation": "valid", "test": "test", "val": "valid", "train": "train"}
_PIANO_KEYS = range(21, 108)  # MIDI numbers of the 87 classes of X-ARES
_CREMA_D = re.compile(r"(\d{4})_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_[A-Z]{2}")
_RAVDESS = re.compile(r"03-01-(0[1-8])-\d\d-\d\d-\d\d-(\d\d)")  # 03 = audio only, 01 = speech
_GTZAN = re.compile(r"([a-z]+)\.(\d{5})")
_VOCALSOUND = re.compile(r"([fm]\d+)_\d+_([a-z]+)")
_LIBRICOUNT = re.compile(r"(\d{1,2})_(\w+)")


def read_layout(name: str, root: str | Path) -> list[Entry]:
    """The entries of a data set in the layout of that name, in a fixed order.

    Raises:
        ConfigError: no such layout.
        DataError: the folder has another layout; the message describes the expected one.
    """
    if name not in LAYOUTS:
        raise ConfigError(f"no layout {name!r}; expected one of {', '.join(sorted(LAYOUTS))}")
    root = Path(root)
    entries = LAYOUTS[name](root)
    if not entries:
        about = " ".join((LAYOUTS[name].__doc__ or "").split())
        raise DataError(f"{root} holds nothing in the layout {name!r}. {about}")
    return entries


def esc50(root: Path) -> list[Entry]:
    """ESC-50 and ESC-10: ``meta/esc50.csv`` and ``audio/``. Facts: label, category, fold, esc10."""
    rows = {row.id: row.meta for row in read_manifest(root / "meta" / "esc50.csv")}
    entries = []
    for entry in recipes.esc50(root):
        meta = rows[entry.id]
        facts = {"label": int(meta.get("target", -1)), "category": entry.meta["event"], "fold": entry.meta["fold"]}
        entries.append(Entry(entry.id, entry.audio, {**facts, "esc10": str(meta.get("esc10", False))}))
    return entries


def fsdd(root: Path) -> list[Entry]:
    """Free Spoken Digit Dataset: ``recordings/{digit}_{speaker}_{index}.wav``. Facts: digit, speaker, session 0 to 4.

    A session is a fifth of a speaker's recording indices in a row; neighbours were recorded together.
    """
    entries = recipes.fsdd(root)
    indices = sorted({int(entry.id.rsplit("_", 1)[1]) for entry in entries})
    session = {index: rank * 5 // len(indices) for rank, index in enumerate(indices)}
    return [
        Entry(
            entry.id,
            entry.audio,
            {
                "digit": entry.meta["text"],
                "speaker": entry.meta["speaker"],
                "session": session[int(entry.id.rsplit("_", 1)[1])],
            },
        )
        for entry in entries
    ]


def speechocean762(root: Path) -> list[Entry]:
    """speechocean762 as two lists: ``train.jsonl`` and ``test.jsonl``. Facts: text, speaker, gender, age and splits.

    ``split`` is the published one. ``part`` has every fifth speaker of the training set as ``valid``. ``session`` is
    the fifth of a speaker's utterances in the order of their names, 0 to 4.
    """
    entries = []
    for split in ("train", "test"):
        found = recipes.speechocean762(root, split=split)
        places: dict[str, list[str]] = defaultdict(list)
        for entry in sorted(found, key=lambda entry: entry.id):
            places[entry.meta["speaker"]].append(entry.id)
        held = set(sorted(places)[4::5]) if split == "train" else set()
        for entry in found:
            speaker = entry.meta["speaker"]
            own = places[speaker]
            facts = {name: entry.meta[name] for name in ("text", "speaker", "gender", "age")}
            facts |= {"split": split, "part": "valid" if speaker in held else split}
            entries.append(Entry(entry.id, entry.audio, {**facts, "session": own.index(entry.id) * 5 // len(own)}))
    return entries


def speechocean762_scores(root: Path) -> list[Entry]:
    """speechocean762 as published: ``{train,test}/wav.scp``, ``resource/scores.json``, ``WAVE/``. Facts: the scores.

    Source: openslr.org/101.
    """
    scores = read_json_object(root / "resource" / "scores.json")
    entries = []
    for split in ("train", "test"):
        for line in read_lines(root / split / "wav.scp"):
            name, _, where = line.strip().partition("\t" if "\t" in line else " ")
            known = scores.get(name)
            if not isinstance(known, dict):
                raise DataError(f"{root}/resource/scores.json has no scores of {name!r}; is it the same release?")
            facts = {
                key: known[key] for key in ("accuracy", "completeness", "fluency", "prosodic", "total") if key in known
            }
            entries.append(Entry(name, inside(root, where.strip()), {**facts, "split": split}))
    return entries


def crema_d(root: Path) -> list[Entry]:
    """CREMA-D: ``AudioWAV/{actor}_{sentence}_{emotion}_{level}.wav``. Facts: label (A D F H N S), speaker, part.

    The label is the emotion the actor was asked for; the tars of X-ARES have the one that most raters named. ``part``
    gives 70 % of the actors to train, 15 % to valid and 15 % to test.
    """
    entries = []
    for path, name in named_audio(root / "AudioWAV", "*", _CREMA_D):
        place = int(name[1]) % 20
        part = "train" if place < 14 else "valid" if place < 17 else "test"
        entries.append(Entry(path.stem, path, {"label": name[2][0], "speaker": name[1], "part": part}))
    return entries


def ravdess(root: Path) -> list[Entry]:
    """RAVDESS, speech: ``Actor_{01..24}/03-01-{emotion}-…-{actor}.wav``. Facts: emotion, speaker, fold 0 to 3.

    Six actors in a row, three women and three men, are a fold.
    """
    return [
        Entry(
            path.stem,
            path,
            {"emotion": _EMOTIONS[int(name[1]) - 1], "speaker": name[2], "fold": (int(name[2]) - 1) // 6},
        )
        for path, name in named_audio(root, "Actor_*/*", _RAVDESS)
    ]


def gtzan(root: Path) -> list[Entry]:
    """GTZAN: ``{genre}/{genre}.{00000..00099}.wav`` (or .au). Facts: genre, fold 0 to 9.

    Ten tracks in a row are a fold, because neighbours often share an artist.
    """
    return [
        Entry(path.stem, path, {"genre": name[1], "fold": int(name[2]) // 10})
        for path, name in named_audio(root, "*/*", _GTZAN, suffixes=(".wav", ".au", ".flac", ".ogg", ".mp3"))
        if path.parent.name == name[1]
    ]


def urbansound8k(root: Path) -> list[Entry]:
    """UrbanSound8K: ``metadata/UrbanSound8K.csv`` and ``audio/fold{1..10}/``. Facts: soundevent, fold."""
    return [
        Entry(
            Path(row["slice_file_name"]).stem,
            inside(root / "audio", f"fold{row['fold']}/{row['slice_file_name']}"),
            {"soundevent": row["class"], "fold": row["fold"]},
        )
        for row in read_table(root / "metadata" / "UrbanSound8K.csv", "slice_file_name", "fold", "class")
    ]


def speech_commands(root: Path) -> list[Entry]:
    """Speech Commands: ``{word}/{speaker}_nohash_{n}.wav``, ``{validation,testing}_list.txt``. Facts: labels."""
    listed = {line.strip(): "valid" for line in read_lines(root / "validation_list.txt")}
    listed |= {line.strip(): "test" for line in read_lines(root / "testing_list.txt")}
    entries = []
    for path in sorted(root.glob("[!_]*/*.wav")):
        name = f"{path.parent.name}/{path.name}"
        facts = {"labels": path.parent.name, "speaker": path.stem.split("_")[0], "split": listed.get(name, "train")}
        entries.append(Entry(name.removesuffix(".wav"), path, facts))
    return entries


def vocalsound(root: Path) -> list[Entry]:
    """VocalSound: ``audio_16k/{speaker}_{n}_{label}.wav`` and ``meta/{tr,val,te}_meta.csv``. Facts: label, speaker."""
    split: dict[str, str] = {}
    for listing, role in (("tr", "train"), ("val", "valid"), ("te", "test")):
        split |= {line.split(",")[0].strip(): role for line in read_lines(root / "meta" / f"{listing}_meta.csv")}
    entries = []
    for path, name in named_audio(root / "audio_16k", "*", _VOCALSOUND):
        if name[1] not in split:
            raise DataError(f"{path.name}: speaker {name[1]!r} is in none of the lists of {root / 'meta'}")
        entries.append(Entry(path.stem, path, {"label": name[2], "speaker": name[1], "split": split[name[1]]}))
    return entries


def libricount(root: Path) -> list[Entry]:
    """LibriCount: ``{speakers}_{id}.wav``, in the folder or in ``test/``. Facts: num_speakers, fold 0 to 4.

    The authors give no folds; every fifth file of each count, in the order of names, is in one.
    """
    folder = root / "test" if (root / "test").is_dir() else root
    seen: dict[str, int] = defaultdict(int)
    entries = []
    for path, name in named_audio(folder, "*", _LIBRICOUNT):
        entries.append(Entry(path.stem, path, {"num_speakers": int(name[1]), "fold": seen[name[1]] % 5}))
        seen[name[1]] += 1
    return entries


def librispeech(root: Path) -> list[Entry]:
    """LibriSpeech: ``SPEAKERS.TXT``, ``{split}/{speaker}/{chapter}/*.{flac,trans.txt}``. Facts: trans, gender."""
    rows = [line.split("|") for line in read_lines(root / "SPEAKERS.TXT") if not line.startswith(";")]
    gender = {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
    entries = []
    for listing in sorted(root.glob("*/*/*/*.trans.txt")):
        split, speaker = listing.parts[-4], listing.parts[-3]
        for line in read_lines(listing):
            name, _, text = line.strip().partition(" ")
            facts = {"trans": text, "speaker": speaker, "gender": gender.get(speaker), "split": split}
            entries.append(Entry(name, inside(listing.parent, f"{name}.flac"), facts))
    return entries


def nsynth(root: Path) -> list[Entry]:
    """NSynth: ``nsynth-{train,valid,test}/examples.json`` and ``audio/``. Facts: instrument_family_str, pitch."""
    entries = []
    for split in ("train", "valid", "test"):
        folder = root / f"nsynth-{split}"
        if split == "train" and not folder.is_dir():
            continue
        for name, note in sorted(read_json_object(folder / "examples.json").items()):
            facts = {key: note[key] for key in ("instrument_family_str", "pitch", "instrument_str") if key in note}
            entries.append(Entry(name, inside(folder / "audio", f"{name}.wav"), {**facts, "split": split}))
    return entries


def fma_small(root: Path) -> list[Entry]:
    """FMA small: ``fma_metadata/tracks.csv`` and ``fma_small/{000..155}/{track}.mp3``. Facts: genre."""
    rows = read_rows(root / "fma_metadata" / "tracks.csv")
    names = list(zip(next(rows, []), next(rows, []), strict=False))  # two lines of headings, then one with track_id
    try:
        subset, split, genre = (
            names.index(name) for name in (("set", "subset"), ("set", "split"), ("track", "genre_top"))
        )
    except ValueError:
        raise DataError(f"{root}/fma_metadata/tracks.csv lacks the columns of subset, split and genre_top") from None
    entries = []
    for row in rows:
        if len(row) == len(names) and row[0].isdigit() and row[subset] == "small":
            track = f"{int(row[0]):06d}"
            where = inside(root / "fma_small", f"{track[:3]}/{track}.mp3")
            entries.append(Entry(track, where, {"genre": row[genre], "split": _ROLES.get(row[split], row[split])}))
    return entries


def fsd50k(root: Path) -> list[Entry]:
    """FSD50K: ``FSD50K.ground_truth/{dev,eval}.csv``, ``FSD50K.{dev,eval}_audio/``. Facts: soundevent."""
    entries = []
    for name in ("dev", "eval"):
        columns = ("fname", "labels", *(["split"] if name == "dev" else []))
        for row in read_table(root / "FSD50K.ground_truth" / f"{name}.csv", *columns):
            where = inside(root / f"FSD50K.{name}_audio", f"{row['fname']}.wav")
            split = _ROLES.get(row.get("split", "test"), "test")
            entries.append(Entry(row["fname"], where, {"soundevent": row["labels"].replace(",", ";"), "split": split}))
    return entries


def clotho(root: Path) -> list[Entry]:
    """Clotho: ``clotho_captions_{split}.csv`` and ``{development,validation,evaluation}/``. Facts: captions, a list."""
    entries = []
    for split in ("development", "validation", "evaluation"):
        names = [f"caption_{number}" for number in range(1, 6)]
        for row in read_table(root / f"clotho_captions_{split}.csv", "file_name", *names):
            facts = {"captions": [row[name] for name in names], "split": f"clotho_{split}"}
            where = inside(root / split, row["file_name"])
            entries.append(Entry(f"{split}/{where.stem}", where, facts))
    return entries


def desed(root: Path) -> list[Entry]:
    """DESED: ``metadata/train/weak.tsv``, ``metadata/validation/validation.tsv`` and ``audio/``. Facts: events.

    A weak label lasts from 0 to 10 s, the length of the clips. The published validation set is the test.
    """
    entries = []
    for row in read_table(root / "metadata/train/weak.tsv", "filename", "event_labels", delimiter="\t"):
        events = [{"onset": 0.0, "offset": 10.0, "label": row["event_labels"]}]
        where = inside(root / "audio/train/weak", row["filename"])
        entries.append(Entry(f"weak/{where.stem}", where, {"events": events, "split": "train"}))
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    table = read_table(
        root / "metadata/validation/validation.tsv", "filename", "onset", "offset", "event_label", delimiter="\t"
    )
    for row in table:
        events = found[row["filename"]]
        if row["event_label"]:  # a file without events has one line with empty cells
            events.append({"onset": float(row["onset"]), "offset": float(row["offset"]), "label": row["event_label"]})
    for name, events in found.items():
        where = inside(root / "audio/validation", name)
        entries.append(Entry(f"validation/{where.stem}", where, {"events": events, "split": "test"}))
    return entries


def fsdkaggle2018(root: Path) -> list[Entry]:
    """FSDKaggle2018: ``FSDKaggle2018.{meta,audio_train,audio_test}/``. Facts: sound.

    The tables are the two ``*_post_competition*.csv``, which have the labels of the test set too.

    Source: zenodo.org/records/2552860.
    """
    entries = []
    for split, table in (("train", "train_post_competition.csv"), ("test", "test_post_competition_scoring_clips.csv")):
        for row in read_table(root / "FSDKaggle2018.meta" / table, "fname", "label"):
            where = inside(root / f"FSDKaggle2018.audio_{split}", row["fname"])
            entries.append(Entry(where.stem, where, {"sound": row["label"], "split": split}))
    return entries


def maestro(root: Path) -> list[Entry]:
    """MAESTRO: ``maestro-v{version}.csv`` and ``{year}/*.{wav,midi}``. Facts: events, the notes, in s of the recording.

    Notes end where the key is released, regardless of the pedal. The task has keys 21 to 107; ``left_out`` counts
    presses of others, which is 108, the highest of a piano. Of several versions the last is read.

    Source: C. Hawthorne et al., "Enabling Factorized Piano Music Modeling … with the MAESTRO Dataset", 2019.
    """
    tables = sorted(root.glob("maestro-v*.csv"))
    if not tables:
        return []
    entries = []
    for row in read_table(tables[-1], "split", "midi_filename", "audio_filename"):
        notes = read_notes(inside(root, row["midi_filename"]))
        events = [
            {"start": round(note.onset_s, 4), "end": round(note.offset_s, 4), "note": note.key}
            for note in notes
            if note.key in _PIANO_KEYS
        ]
        facts = {"events": events, "left_out": len(notes) - len(events)}
        where = inside(root, row["audio_filename"])
        entries.append(Entry(where.stem, where, {**facts, "split": _ROLES.get(row["split"], row["split"])}))
    return entries


def hear(root: Path) -> list[Entry]:
    """A HEAR task: ``task_metadata.json``, ``{split}.json`` and ``{sample rate}/{split}/``. Facts: labels or events.

    Of several rates 16 kHz is read, else the highest.
    """
    rates = sorted(int(path.name) for path in root.iterdir() if path.name.isdigit()) if root.is_dir() else []
    splits = read_json_object(root / "task_metadata.json").get("splits")
    if not rates or not isinstance(splits, list):
        raise DataError(f"{root}: found rates {rates} and splits {splits}, expected the folder of one HEAR task")
    rate = 16_000 if 16_000 in rates else rates[-1]
    entries = []
    for split in splits:
        for name, labels in read_json_object(root / f"{split}.json").items():
            timed = isinstance(labels, list) and any(isinstance(label, dict) for label in labels)
            facts = {key: labels for key in ("events", "labels") if not labels or timed == (key == "events")}
            where = inside(root / str(rate) / str(split), name)
            entries.append(Entry(f"{split}/{name}", where, {**facts, "split": split}))
    return entries


LAYOUTS: Mapping[str, Callable[[Path], list[Entry]]] = {
    layout.__name__: layout
    for layout in (
        esc50, fsdd, speechocean762, speechocean762_scores, crema_d, ravdess, gtzan, urbansound8k, speech_commands,
        vocalsound, libricount, librispeech, nsynth, fma_small, fsd50k, clotho, desed, hear, fsdkaggle2018, maestro,
        asvspoof2015, fluent_speech_commands, voxceleb1, voxlingua107, vocal_imitations,
    )
}  # fmt: skip
