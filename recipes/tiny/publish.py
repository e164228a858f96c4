"""Write the trained models into the package, as int8 with cards and checksums.

Usage: python recipes/tiny/publish.py TABLE.json DST MODEL RUN [RUN ...] [--continues MODEL]
(the table of `auricle heldout`, src/auricle/weights/embedded, the measured model, and the folders that `auricle train`
made, in order, the pre-training first; with --continues the first run started from a published MODEL, whose hash the
card states)
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from auricle.weights import Card, load_midashenglm, read_card, safe, save_midashenglm
from auricle.weights.cards import CALIBRATION_FIGURE
from auricle.weights.catalog import resolve
from auricle.weights.generation_config import UNSURE_KEY

WEIGHTS = "model.safetensors"
DATASETS = (
    "ESC-10 (part of ESC-50, K. J. Piczak; CC BY and CC0 clips of freesound.org): 240 environmental sounds, folds 1-3",
    "Free Spoken Digit Dataset (Z. Jackson and others; CC BY-SA 4.0): 2,000 digits of 4 speakers",
    "speechocean762 (SpeechOcean and Xiaomi; free for research and commercial use), train part: 2,500 read English "
    "sentences of 125 Mandarin speakers, half of them children",
    "events of free games and desktops (352 recordings by 133 authors; CC0, CC BY or public domain; Luanti, Blanket "
    "and others): 69 events",
    "donateacry (contributors of donateacry-corpus; ODbL and DbCL 1.0): 297 crying babies",
    "Arabic speech commands (Ghandoura, Hjabo and Al Dakkak 2021; CC BY 4.0): 1,440 commands of 27 speakers",
    "wake words and coffee orders (Picovoice; Apache-2.0): 1,783 utterances of many speakers",
    "Mycroft Precise community data (public domain): 612 wake words",
    "telephone prompts of Asterisk (Digium and others; CC BY-SA 3.0 and CC BY 3.0): 248 in five languages",
    "Philharmonia Orchestra samples (CC BY-SA 3.0; not to be made available as samples, and not in the weights as "
    "such): 499 notes and strokes; drums and loops of Sonic Pi (CC0): 72",
    "0 A.D. (Wildfire Games; CC BY-SA 3.0): 365 labelled sounds of the game",
    "material made by recipes/tiny/material.py: 5,400 espeak-ng utterances in 16 languages, 800 tunes on instruments "
    "of the FluidR3 GM soundfont (MIT), 1,350 phrases and rhythms of the recorded notes above, 600 procedural sounds",
    "teacher: YAMNet (TensorFlow models, Apache-2.0), whose scores of the training mixtures were targets; it is no "
    "part of the weights",
)
MEASURED = (
    "Measured on clips no stage has used: ESC-10 fold 4, the digit speaker theo, the speakers of speechocean762's "
    "test part, other recordings or speakers of the wide sets, tunes of another seed."
)
LIMITS = (
    "It knows the names of 150 sound events, most of them by a few recordings: of a new recording the right one is "
    "among the likeliest five more often than it is the first. See the rows below.",
    "It writes down digits and the commands it was trained on; other speech is recognised as such and its language "
    "named.",
    "It answers the kinds of question it was trained on, in few words; it does not reason or follow free instructions.",
    "What it says of a speaker's gender or age is a statistic of a voice, not a fact about a person. It takes many "
    "boys under 13 for girls: what the row of all speakers lacks against that of adults.",
    "It was trained on clips of at most 10 s; longer ones are processed in windows.",
    "Its encoder alone (auricle-tiny-encoder) saw the labels of its training clips through captions and tags: it is "
    "not purely self-supervised. For real work use dasheng-base.",
)
VERB_LIMITS = {
    "transcribe": "this model transcribes only spoken digits and short commands",
    "schema": "it was not trained to write JSON: an answer fits the schema, its values are guesses",
}
# Mean probability of a token. Of captions that name the event and digits transcribed exactly, on the clips above, 5 %
# are below it.
UNSURE_BELOW = 0.68


def curve(run: Path, points: int = 12) -> list[list[float]]:
    """Evenly spread [step, loss] pairs of a run's log."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    chosen = [rows[round(i * (len(rows) - 1) / (points - 1))] for i in range(points)]
    return [[row["step"], round(row["loss"], 3)] for row in chosen]


def measured(table: dict[str, Any]) -> dict[str, str]:
    """The rows of the held-out table, in words."""
    rows = {}
    for name, row in table["rows"].items():
        value, low, high = (f"{100 * row[key]:.1f}" for key in ("value", "low", "high"))
        rows[name] = f"{value} % [{low}, {high}], n = {row['n']}"
    return rows


def training(runs: list[Path], continues: Path | None) -> dict[str, Any]:
    """The published model it started from, and settings and loss curve of each stage, in order."""
    start = {"continues": f"{continues.name}, SHA-256 {safe.sha256(continues / WEIGHTS)}"} if continues else {}
    stages = [{**read_card(run / "model").config, "curve": curve(run)} for run in runs]
    return start | {f"stage_{i}": stage for i, stage in enumerate(stages, 1)}


def main() -> None:
    """Parse, load, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--continues", type=lambda name: resolve(name, offline=True).path)
    options = parser.parse_args()
    table = json.loads(options.table.read_text())
    calibration = read_card(options.model).calibration  # by calibrate.py
    loaded = load_midashenglm(options.model)
    facts: dict[str, Any] = {
        "datasets": DATASETS,
        "seed": read_card(options.runs[-1] / "model").seed,
        "config": training(options.runs, options.continues),
    }
    card = Card(
        name="auricle-tiny",
        summary=f"A small audio language model: captions, transcripts and answers on a CPU, offline. {MEASURED}",
        metrics=measured(table),
        limits=LIMITS,
        verb_limits=VERB_LIMITS,
        calibration=calibration,
        **facts,
    )
    folder = options.destination / card.name
    save_midashenglm(
        folder,
        loaded.model,
        loaded.tokenizer.to_str(),
        loaded.chat_template,
        dtype="int8",
        card=card,
        generation={
            **safe.read_json(options.model / "generation_config.json"),
            **({} if calibration else {UNSURE_KEY: UNSURE_BELOW}),
        },
    )
    if calibration:
        shutil.copyfile(options.model / CALIBRATION_FIGURE, folder / CALIBRATION_FIGURE)
    safe.write_checksums(folder)


if __name__ == "__main__":
    main()
