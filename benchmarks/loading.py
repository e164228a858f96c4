"""Load an audio language model and let it answer about one clip: seconds and memory, allocated and mapped.

python benchmarks/loading.py FOLDER [--dtype float32] [--quantize int8] [--adapter DIR] [--clip FILE] [--json] [-o FILE]

Linux only. Anonymous memory is what the process allocated; mapped memory are pages of the checkpoint itself, which the
system can drop and read again. The peaks are sampled every 5 ms. Run it on an otherwise idle machine, once with the
file in the page cache and once without, since reading a checkpoint from disk takes most of the time.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from typing import Any

from pairs import options, write

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "voice_over_piano.ogg"
_FIELDS = ("RssAnon", "RssFile")


def memory_mb() -> dict[str, float]:
    """Anonymous and mapped memory of this process, MB."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in _FIELDS:
            found[name] = int(value.split()[0]) * 1024 / 1e6
    return found


class Peak(threading.Thread):
    """The largest of each kind of memory while it runs."""

    def __init__(self) -> None:
        """Not started yet."""
        super().__init__(daemon=True)
        self.found = dict.fromkeys(_FIELDS, 0.0)
        self._done = threading.Event()

    def run(self) -> None:
        """Sample."""
        while not self._done.wait(0.005):
            for name, value in memory_mb().items():
                self.found[name] = max(self.found[name], value)

    def stop(self) -> dict[str, float]:
        """The peaks, MB."""
        self._done.set()
        self.join()
        return self.found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Load and answer."""
    start = time.perf_counter()
    from auricle.audio import decode
    from auricle.engine import Engine, SamplingParams
    from auricle.weights import load_midashenglm
    from auricle.weights.loaders import prompt_writer

    load_midashenglm("auricle-tiny")  # imports what loading imports
    imported, before = time.perf_counter(), memory_mb()
    peak = Peak()
    peak.start()
    loaded = load_midashenglm(args.folder, dtype=args.dtype, quantize=args.quantize, adapter=args.adapter)
    ready, peaks, after = time.perf_counter(), peak.stop(), memory_mb()
    writer = prompt_writer(loaded)
    content = [{"type": "audio", "audio": decode(args.clip).waveform}, {"type": "text", "text": args.prompt}]
    prompt = writer.write([{"role": "user", "content": content}])
    peak = Peak()
    peak.start()
    (answer,) = Engine(loaded).generate([prompt], SamplingParams(max_new_tokens=args.tokens))
    answered, answering = time.perf_counter(), peak.stop()
    return {
        "model": str(args.folder),
        "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "dtype": str(loaded.model.decoder.dtype),
        "quantize": args.quantize,
        "import_s": round(imported - start, 2),
        "load_s": round(ready - imported, 2),
        "answer_s": round(answered - ready, 2),
        "prompt_tokens": len(prompt.input_ids),
        "answer_ids": answer.ids,
        "before_loading_mb": _rounded(before),
        "after_loading_mb": _rounded(after),
        "peak_loading_mb": _rounded(peaks),
        "peak_answering_mb": _rounded(answering),
    }


def _rounded(sizes: dict[str, float]) -> dict[str, int]:
    return {name: round(size) for name, size in sizes.items()}


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__)
    parser.add_argument("folder", help="folder, hub id or embedded name")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16; the checkpoint's own by default")
    parser.add_argument("--quantize", help="int8 or int8-dynamic")
    parser.add_argument("--adapter", help="folder of a PEFT adapter")
    parser.add_argument("--clip", type=Path, default=EXAMPLE)
    parser.add_argument("--prompt", default="Describe the audio.")
    parser.add_argument("--tokens", type=int, default=8)
    args = parser.parse_args()
    write(measure(args), args)


if __name__ == "__main__":
    main()
