"""Manifests of the wide sets: recordings with a licence each, split into what is learnt from, chosen by, measured with.

    python recipes/tiny/wide.py WIDE OUT [--also MANIFEST ...]

WIDE holds a folder for each set that is there, with `manifest.jsonl` and `audio/`. Writes
OUT/{train,valid,test}/SET.jsonl, whose rows have the facts that scenes use. Of one recording, or one speaker where
speakers are known, all clips are in one part. Where a set names no speakers, a speaker of the test part may have been
heard in training. Events of the manifests in --also, of ESC-10 and of `sounds.py` are learnt elsewhere too.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import sounds

Row = dict[str, Any]

FACTS = ("text", "language", "gender", "age", "speaker", "event", "recording", "command", "slots", "instruments")
FACTS += ("license", "author", "source")
INSTRUMENTS = {"piano": "piano", "violin": "violin", "drumkit": "drum kit", "cymbal_crash": "cymbals"}  # by event
EVENTS = {"train whistle": "train_whistle", "motor horn": "car_horn", "swanee whistle": "whistle"}  # by instrument
NAMES = {"bell tree": "bells"}  # of instruments
# Labels of one thing: a recording of the first tests what is learnt from recordings of the second.
SAME = {
    "bat_left": "bat",
    "bear": "bear_growl",
    "blackcat": "cat",
    "dolphin": "dolphin_chirp",
    "gander": "goose",
    "glass": "glass_breaking",
    "gorilla": "gorilla_grunt",
    "horse": "horse_neigh",
    "lightningbolt": "thunderstorm",
    "mountaingoat": "goat",
    "sea": "sea_lion",
}
ESC10 = ("dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby", "sneezing", "clock_tick", "helicopter")
ESC10 += ("chainsaw",)
TEST, VALID = 0.15, 0.08  # shares of the groups of a set


def number(name: str) -> float:
    """A name → an even number in [0, 1), the same everywhere."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") / 2**64


def is_free(row: Row) -> bool:
    """Whether a model trained on the clip may be passed on under other terms than the clip's own."""
    return "GPL" not in str(row.get("license", ""))


def split_events(rows: list[Row], learnt: frozenset[str] = frozenset()) -> dict[str, list[Row]]:
    """Of every event with two recordings one for the test, with four another to choose by.

    Unfree recordings are never learnt from, and test only events that are: here, or as one of `learnt` elsewhere.
    """
    recordings: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if is_free(row) and row["recording"] not in recordings[row["event"]]:
            recordings[row["event"]].append(row["recording"])
    part_of: dict[str, str] = {}
    for names in recordings.values():
        names.sort(key=number)
        parts = ("test",) * (len(names) > 1) + ("valid",) * (len(names) > 3)
        part_of.update(zip(names, parts, strict=False))
    parts = {"train": [], "valid": [], "test": []}  # type: dict[str, list[Row]]
    for row in rows:
        if is_free(row):
            parts[part_of.get(row["recording"], "train")].append(row)
        else:
            parts["test"].append(row)
    learnt |= {row["event"] for row in parts["train"]}
    known = learnt | {event for event, same in SAME.items() if same in learnt}
    return {part: [row for row in found if row["event"] in known] for part, found in parts.items()}


def split_groups(rows: Iterable[Row], fact: str) -> dict[str, list[Row]]:
    """Whole groups of clips with the same value of a fact, by the hash of that value."""
    parts: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    for row in filter(is_free, rows):
        place = number(str(row[fact]))
        parts["test" if place < TEST else "valid" if place < TEST + VALID else "train"].append(row)
    return parts


def split_speakers(rows: list[Row]) -> dict[str, list[Row]]:
    """As `split_groups`, of few speakers: a sixth of them for the test, a twelfth to choose by."""
    speakers = sorted({row["speaker"] for row in rows}, key=number)
    test, valid = len(speakers) // 6, len(speakers) // 12
    parts = {"test": speakers[:test], "valid": speakers[test : test + valid], "train": speakers[test + valid :]}
    return {part: [row for row in rows if row["speaker"] in names] for part, names in parts.items()}


def plain_text(text: str | None) -> str | None:
    """The spoken words in lower case; None if they are not written as spoken."""
    if not text or re.search(r"[\[\]<>{}|\d]", text):
        return None
    words = re.sub(r"[^\w' ]+", " ", text.lower()).split()
    return " ".join(words) or None


def command_facts(row: Row) -> Row:
    """A keyword: what it means where it is translated; else the words as they are spoken, in whatever accent."""
    if meaning := row.get("text_en"):
        return {"text": None, "command": meaning}
    keyword = plain_text(row.get("keyword"))
    return {"text": keyword, "command": keyword, "language": "en" if keyword else row["language"]}


def order_facts(row: Row) -> Row:
    """An order of a drink; words that another program heard are taken only where they name every part of the order."""
    slots = {name: str(value).strip() for name, value in row["slots"].items()}
    return {"text": plain_text(row["text_asr"]) if row["slots_confirmed"] else None, "slots": slots}


def prompt_facts(row: Row) -> Row:
    """A recorded prompt of a telephone system; the gender is that in the name of the voice, as in "fr_CA_f_June"."""
    named = re.search(r"[a-z]{2}_[A-Z]{2}_([fm])_", row["audio"])
    text = plain_text(row.get("text")) if row["language"] == "en" else None
    return {"text": text, "gender": named[1] if named else None}


SETS: dict[str, tuple[Callable[[list[Row]], dict[str, list[Row]]], Callable[[Row], Row]]] = {
    "open_events": (split_events, lambda row: {}),  # with the events that are learnt elsewhere, see `main`
    "donateacry": (
        lambda rows: split_groups(rows, "speaker"),
        lambda row: {"gender": None, "recording": row["speaker"]},
    ),
    "picovoice_wake_words": (lambda rows: split_groups(rows, "audio"), command_facts),
    "mycroft_community": (lambda rows: split_groups(rows, "audio"), command_facts),
    "picovoice_coffee_commands": (lambda rows: split_groups(rows, "audio"), order_facts),
    "arabic_commands": (split_speakers, command_facts),
    "asterisk_prompts": (lambda rows: split_groups(rows, "audio"), prompt_facts),
    "philharmonia": (lambda rows: split_groups(rows, "audio"), lambda row: {"note": row.get("note")}),
    "philharmonia_plucked": (lambda rows: split_groups(rows, "audio"), lambda row: {"note": row.get("note")}),
    "drums_and_loops": (lambda rows: split_groups(rows, "audio"), lambda row: {}),
}


def convert(name: str, row: Row, folder: Path) -> Row:
    """A row of a wide set → a row that `auricle data pack` reads."""
    found = {fact: row[fact] for fact in FACTS if row.get(fact) is not None}
    found |= SETS[name][1](row)
    kind = row["kind"]
    if row.get("event") in INSTRUMENTS:
        kind = "music"
        found |= {"instruments": [INSTRUMENTS[row["event"]]], "event": None}
    elif kind == "music" and (name_of := row["instruments"][0]) in EVENTS:
        kind = "sound"
        found |= {"instruments": None, "event": EVENTS[name_of]}
    elif kind == "music":
        found["instruments"] = [NAMES.get(each, each) for each in row["instruments"]]
    audio = folder / row["audio"]
    known = {fact: value for fact, value in found.items() if value is not None}
    return {"id": audio.stem, "audio": str(audio.resolve()), "kind": kind, **known, "set": name}


def main() -> None:
    """Parse, split, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wide", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="other manifests of training clips")
    options = parser.parse_args()
    others = [json.loads(line) for file in options.also for line in file.read_text(encoding="utf-8").splitlines()]
    learnt = frozenset({*ESC10, *sounds.EVENTS, *(row["event"] for row in others if row.get("event"))})
    for name, (split, _) in SETS.items():
        folder = options.wide / name
        if not folder.is_dir():
            print(f"{name}: not there, left out")
            continue
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        rows = list({row["audio"]: row for row in map(json.loads, lines)}.values())  # some rows are there twice
        found = split_events(rows, learnt) if split is split_events else split(rows)
        parts = {part: chosen for part, chosen in found.items() if chosen}
        for part, chosen in parts.items():
            file = options.out / part / f"{name}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(convert(name, row, folder), ensure_ascii=False) + "\n" for row in chosen)
            file.write_text(text, encoding="utf-8")
        print(name, {part: len(chosen) for part, chosen in parts.items()})


if __name__ == "__main__":
    main()
