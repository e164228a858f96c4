"""Write the trained models into the package, as int8 with cards and checksums.

Usage: python recipes/tiny/publish.py TABLE.json DST MODEL RUN [RUN ...] [--continues MODEL]
(the table of `auricle heldout`, src/auricle/weights/embedded, the measured model, and the folders that `auricle train`
made, in order, the pre-training first; with --continues the first run started from a published MODEL, whose card lists
the stages before)
"""

import argparse
import json
from pathlib import Path
from typing import Any

from auricle.weights import Card, load_midashenglm, read_card, safe, save_midashenglm
from auricle.weights.cards import UNSURE_KEY

DATASETS = (
    "ESC-10 (part of ESC-50, K. J. Piczak; CC BY and CC0 clips of freesound.org): 240 environmental sounds, folds 1-3",
    "Free Spoken Digit Dataset (Z. Jackson and others; CC BY-SA 4.0): 2,000 digits of 4 speakers",
    "speechocean762 (SpeechOcean and Xiaomi; free for research and commercial use), train part: 2,500 read English "
    "sentences of 125 Mandarin speakers, half of them children",
    "material made by recipes/tiny/material.py: 3,600 espeak-ng utterances (500 of them in ten other languages), "
    "800 tunes on 16 instruments of the FluidR3 GM soundfont (MIT), 420 procedural sounds",
)
MEASURED = (
    "Measured on clips no stage has used: ESC-10 fold 4, the digit speaker theo, the speakers of speechocean762's "
    "test part, tunes of another seed. The shipped weights are the mean of the last two stages' models."
)
LIMITS = (
    "It knows ten recorded sound events (dog, rooster, rain, sea waves, crackling fire, crying baby, sneezing, clock, "
    "helicopter, chainsaw) and a dozen synthetic ones; any other sound gets the nearest of these names.",
    "Its music is rendered from one soundfont; instruments and tempi of real recordings are guesses.",
    "Other languages than English were synthetic voices with ten sentences each: the language named is a guess.",
    "It answers the kinds of question it was trained on, in few words; it does not reason or follow free instructions.",
    "What it says of a speaker's gender or age is a statistic of a voice, not a fact about a person. It takes most "
    "boys under 13 for girls: what the row of all speakers lacks against that of adults.",
    "It was trained on clips of at most 10 s; longer ones are processed in windows.",
    "Its encoder alone (auricle-tiny-encoder) saw the labels of its training clips through captions and tags: it is "
    "not purely self-supervised. For real work use dasheng-base.",
)
VERB_LIMITS = {
    "transcribe": "transcripts are of use for spoken digits only; of other speech it makes up sentences",
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
    """Settings and loss curve of each stage, in order; a run that was cut short has a curve shorter than its steps."""
    stages = list(read_card(continues).config.values()) if continues else []
    stages += [{**read_card(run / "model").config, "curve": curve(run)} for run in runs]
    return {f"stage_{i}": stage for i, stage in enumerate(stages, 1)}


def main() -> None:
    """Parse, load, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--continues", type=Path)
    options = parser.parse_args()
    table = json.loads(options.table.read_text())
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
        generation={**safe.read_json(options.model / "generation_config.json"), UNSURE_KEY: UNSURE_BELOW},
    )
    safe.write_checksums(folder)


if __name__ == "__main__":
    main()
