"""Write auricle-tiny with another number of 25 Hz frames in an audio token, and a projector that knows nothing.

python recipes/dial/start.py OUT FACTOR [--model auricle-tiny] [--seed 0]

FACTOR 1, 2, 4, 5 and 10 give 25, 12.5, 6.25, 5 and 2.5 tokens a second.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from auricle.models.midashenglm import MiDashengLM
from auricle.weights import load_midashenglm, safe, save_midashenglm


def main() -> None:
    """Parse, build, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("factor", type=int)
    parser.add_argument("--model", default="auricle-tiny")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    loaded = load_midashenglm(options.model)
    torch.manual_seed(options.seed)
    model = MiDashengLM(replace(loaded.model.config, subsample_factor=options.factor))
    model.audio_encoder.load_state_dict(loaded.model.audio_encoder.state_dict())
    model.decoder.load_state_dict(loaded.model.decoder.state_dict())
    save_midashenglm(
        options.out,
        model,
        loaded.tokenizer.to_str(),
        loaded.chat_template,
        generation=safe.read_json(Path(str(loaded.identity["path"])) / "generation_config.json"),
    )


if __name__ == "__main__":
    main()
