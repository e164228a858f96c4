"""Average the weights of models of one descent: better than each of them, at the cost of one (arXiv 2203.05482).

Usage: python recipes/tiny/average.py OUT MODEL MODEL [MODEL ...]
(folders that `auricle train` exported, one trained from the other or all from the same)
"""

import argparse
from pathlib import Path

import torch

from auricle.weights import load_midashenglm, safe, save_midashenglm


def main() -> None:
    """Parse, average, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    options = parser.parse_args()
    loaded = [load_midashenglm(folder) for folder in options.models]
    states = [each.model.state_dict() for each in loaded]
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[name].double() for state in states]).mean(0))
    first = loaded[0]
    save_midashenglm(
        options.out,
        first.model,
        first.tokenizer.to_str(),
        first.chat_template,
        generation=safe.read_json(options.models[0] / "generation_config.json"),
    )


if __name__ == "__main__":
    main()
