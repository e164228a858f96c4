"""How deep `AudioLM.describe` calls before the first attention: frames and files of Auricle on the stack.

python benchmarks/call_depth.py [--json] [--stack]

Counted are the Python frames of `src/auricle` on the stack at the first call of ``scaled_dot_product_attention``, once
from the audio encoder and once from the decoder: functions, methods, comprehensions and generators alike, from
`AudioLM.describe` to the function that calls attention. Frames of torch, of other packages and of this script are not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

import auricle

SOURCE = Path(auricle.__file__).resolve().parent


class Frame(NamedTuple):
    """One Python frame of Auricle on the stack."""

    file: str  # relative to src/auricle
    line: int
    function: str


def frames_below(depth: int) -> list[Frame]:
    """Frames of Auricle from ``depth`` callers above this one on, outermost first."""
    found: list[Frame] = []
    frame: Any = sys._getframe(depth + 1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCE):
            found.append(Frame(str(path.relative_to(SOURCE)), frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return found[::-1]


def first_attention(model: Any, source: Any) -> dict[str, list[Frame]]:
    """The stacks of ``model.describe(source)`` at the first attention of ``encoder`` and ``decoder``.

    Args:
        model: an `auricle.listen.AudioLM` that has not processed the source yet: its caches would skip the encoder.
        source: one clip that is not silent.
    """
    attention, stacks, inside = F.scaled_dot_product_attention, {}, [False]

    def watched(*tensors: Any, **settings: Any) -> torch.Tensor:
        stacks.setdefault("encoder" if inside[0] else "decoder", frames_below(1))
        return attention(*tensors, **settings)

    network = model.loaded.model
    encode = network.audio_encoder.encode

    def encoding(*arguments: Any, **settings: Any) -> Any:
        inside[0] = True
        try:
            return encode(*arguments, **settings)
        finally:
            inside[0] = False

    with (
        mock.patch.object(F, "scaled_dot_product_attention", watched),
        mock.patch.object(network.audio_encoder, "encode", encoding),
    ):
        model.describe(source, max_new_tokens=1)
    return stacks


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="auricle-tiny", help="embedded name or folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--stack", action="store_true", help="print the frames too")
    args = parser.parse_args()
    noise = (0.1 * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)
    stacks = first_attention(auricle.load(args.model), noise)
    counts = {
        part: {"frames": len(frames), "files": len({frame.file for frame in frames})} for part, frames in stacks.items()
    }
    if args.json:
        print(json.dumps(counts))
        return
    for part, count in counts.items():
        print(f"{part}: {count['frames']} frames in {count['files']} files")
        if args.stack:
            print("\n".join(f"  {frame.file}:{frame.line} {frame.function}" for frame in stacks[part]))


if __name__ == "__main__":
    main()
