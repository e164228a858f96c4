"""Recordings of the game 0 A.D. as training clips: labelled ones, and the rest for training without labels.

    python recipes/tiny/game_sounds.py AUDIO OUT

AUDIO is the folder `audio/` of the game's public.zip (Debian package 0ad-data; Wildfire Games, CC BY-SA 3.0). Writes
OUT/train.jsonl, whose clips have the facts that their file names state, and OUT/unlabelled.jsonl with all the others.
"""

import argparse
import json
from pathlib import Path
from typing import Any

SOURCE = {"license": "CC-BY-SA-3.0", "author": "Wildfire Games", "source": "Debian 0ad-data 0.0.26"}
# The start of a path below AUDIO → the event. The longest start that fits is taken.
EVENTS = {
    "actor/fauna/animal/cattle": "cow",
    "actor/fauna/animal/chicken": "hen",
    "actor/fauna/animal/elephant": "elephant",
    "actor/fauna/animal/flamingo": "flamingo",
    "actor/fauna/animal/horse": "horse",
    "actor/fauna/animal/lion": "lion",
    "actor/fauna/animal/peacock": "peacock",
    "actor/fauna/animal/pig": "pig",
    "actor/fauna/animal/sheep": "sheep",
    "actor/fauna/animal/camel": "dromedary",
    "actor/fauna/death/goat": "goat",
    "actor/fauna/death/death_horse": "horse",
    "actor/human/death": "screaming",
    "actor/singlesteps": "footsteps",
    "actor/mounted/movement": "horse_gallop",
    "ambient/water/river": "stream",
    "ambient/water/waterfall": "waterfall",
    "ambient/water/wave": "sea_waves",
    "ambient/weather/rain": "rain",
    "ambient/weather/thunder": "thunderstorm",
    "ambient/weather/wind": "wind",
    "attack/weapon/Musket": "gunshot",
    "attack/destruction/explode": "explosion",
    "attack/destruction/building": "collapse",
    "resource/construction/con_saw": "saw",
    "resource/construction/con_wood": "hammer",
    "resource/lumbering": "wood_chopping",
    "resource/mining/mine_metal": "metal_clang",
    "resource/foraging/leaves": "leaves",
    "voice/global/civ_dog_bark": "dog",
}


def facts(path: str) -> dict[str, Any] | None:
    """What the name of a file below AUDIO states; None where it is not clear."""
    if path.startswith("music/"):
        return {"kind": "music"}
    starts = [start for start in EVENTS if path.startswith(start)]
    return {"kind": "sound", "event": EVENTS[max(starts, key=len)]} if starts else None


def main() -> None:
    """Parse, sort, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    files = sorted(options.audio.rglob("*.ogg"))
    if not files:
        raise SystemExit(f"{options.audio}: no .ogg files; expected the folder audio/ of 0 A.D.'s public.zip")
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "unlabelled": []}
    for file in files:
        path = file.relative_to(options.audio).as_posix()
        found = facts(path)
        part = "unlabelled" if found is None else "train"
        row = {"id": path.removesuffix(".ogg").replace("/", "-"), "audio": str(file.resolve())}
        rows[part].append({**row, **(found or {}), "set": "0ad" if found else "0ad-unlabelled", **SOURCE})
    options.out.mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (options.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(lines)} clips")


if __name__ == "__main__":
    main()
