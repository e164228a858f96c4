"""Write the trained denoiser into the package: int8 without its encoder, which is embedded already, card and checksums.

python recipes/tiny/publish_denoiser.py VOCODER_RUN DENOISER_RUN TABLE.json DST
(the folders that `auricle train` made of vocoder.yaml and denoiser.yaml, the table of benchmarks/enhancement.py, and
src/auricle/weights/embedded)
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publish import DATASETS, curve

from auricle.weights import Card, read_card, safe
from auricle.weights.vocoders.denoiser import load_denoiser
from auricle.weights.writers import save_denoiser

NAME, ENCODER = "auricle-tiny-denoiser", "auricle-tiny-encoder"
MAX_BYTES = 8_000_000  # of the folder
SUMMARY = (
    "Speech enhancement on a CPU, offline: noisy frames of the embedded auricle-tiny-encoder become clean ones, from "
    "which the speech is made anew. Measured on speakers and noises that no stage has used, at -5 to 15 dB."
)
WIDE = (
    "recordings of events, commands, orders and telephone prompts in several languages, where they were there; each "
    "states its licence and author in its manifest (CC0, CC BY, CC BY-SA and public domain), see recipes/tiny/wide.py"
)
LIMITS = (
    "It was trained on speech: music, singing and sounds come out as if they were speech.",
    "Its output is made anew: phase, timing within 40 ms and details of a voice are invented, so that scores that "
    "compare waveforms (PESQ, STOI, SI-SDR) are low however it sounds, and words may change in strong noise.",
    "16 kHz: frequencies above 8 kHz are not restored.",
    "The clean speech it learnt from has the noise of its own recordings.",
)


def measured(table: Mapping[str, Any]) -> dict[str, str]:
    """Every figure of the table, in words."""
    rows = {}
    for system, values in table["systems"].items():
        title = "denoised" if system in table["models"] else system
        for metric, score in values.items():
            if score["value"] is not None:
                rows[f"{metric}, {title}"] = "{value:.3f} [{low:.3f}, {high:.3f}], n = {n}".format(**score)
    return rows


def main() -> None:
    """Parse, load, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocoder", type=Path)
    parser.add_argument("denoiser", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("destination", type=Path)
    options = parser.parse_args()
    stages = {
        f"stage_{number}": {**read_card(run / "model").config, "curve": curve(run)}
        for number, run in enumerate((options.vocoder, options.denoiser), 1)
    }
    card = Card(
        name=NAME,
        summary=SUMMARY,
        datasets=(*DATASETS, WIDE),
        metrics=measured(json.loads(options.table.read_text(encoding="utf-8"))),
        limits=LIMITS,
        seed=read_card(options.denoiser / "model").seed,
        config=stages,
        base_model=ENCODER,
        tags=("audio", "speech-enhancement"),
    )
    folder = options.destination / NAME
    model = load_denoiser(options.denoiser / "model").model
    save_denoiser(folder, model, dtype="int8", encoder=ENCODER, card=card)
    safe.write_checksums(folder)
    if (size := sum(file.stat().st_size for file in folder.iterdir())) > MAX_BYTES:
        raise SystemExit(f"{folder} has {size:,} bytes, expected at most {MAX_BYTES:,}: make the sizes smaller")


if __name__ == "__main__":
    main()
