"""Time rounded language models against float32, same weights, in alternation; and how far their answers move.

python benchmarks/quantize.py [--sizes 0.1b 0.6b] [--rounds 5] [--threads 1] [--clips FOLDER] [--json] [-o FILE]

Kernels: one layer (1024 → 3072), cold weights, by every way torch has and by ours. Decode: milliseconds a step of new
tokens for 1, 4 and 16 prompts at once, through `auricle.engine.engine.generate`; speed does not need real weights, so
they are random. Encoder: one clip of 10 s, base size; ``int8`` leaves it alone. Answers: the embedded model on
``--clips`` (wav, flac, ogg), or on tones in noise: captions that stay the same, and the loss of its own float32
captions. Its file holds rows of int8 already, so ``int8`` loses less there than on a model stored in full. On one
thread, times are the processor's own, which a busy machine changes least.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pairs import Row, machine, options, seconds, spread, write
from torch import Tensor, nn

from auricle.audio.decode import as_clip
from auricle.data.wording import CAPTION_PROMPT
from auricle.engine.engine import generate
from auricle.engine.request import SamplingParams
from auricle.models.dasheng import DashengConfig
from auricle.models.int8 import Int8Linear, round_rows
from auricle.models.midashenglm import MiDashengLM, MiDashengLMConfig
from auricle.models.qwen import QwenConfig
from auricle.weights import LoadedLM, load_midashenglm
from auricle.weights.construct import fill
from auricle.weights.loaders import prompt_writer
from auricle.weights.processor import Prompt
from auricle.weights.quantize import round_layers

KINDS = ("float32", "int8", "int8-dynamic")
ROWS = (1, 4, 16)  # prompts at once
STEPS = 4  # tokens that are timed
PROMPT = 4  # tokens of a prompt; what it takes is subtracted
ENCODER = DashengConfig(embed_dim=128, depth=1, num_heads=2, attend="whole")
SIZES = {
    "0.1b": QwenConfig(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        vocab_size=32_000,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    ),
    # Qwen3-0.6B's shape, as far as a Qwen2 has it.
    "0.6b": QwenConfig(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        vocab_size=151_936,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    ),
}


def models(config: MiDashengLMConfig) -> dict[str, MiDashengLM]:
    """One network with random weights, in float32 and rounded."""
    torch.manual_seed(0)
    full = MiDashengLM(config).eval().requires_grad_(False)
    found = {"float32": full}
    for scheme in KINDS[1:]:
        made, state = MiDashengLM(config), dict(full.state_dict())
        round_layers(made, state, scheme)
        fill(made, state, torch.float32, torch.device("cpu"), scheme)
        found[scheme] = made.eval().requires_grad_(False)
    return found


def cpu_seconds(call: Callable[[], object]) -> float:
    """Processor time of one call, on one thread; other processes on the machine add to it only through memory."""
    start = time.process_time()
    call()
    return time.process_time() - start


def together(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, once a round, after one call of each; the order turns."""
    clock = cpu_seconds if torch.get_num_threads() == 1 else seconds
    for call in calls.values():
        call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            spent[name].append(clock(calls[name]))
    return spent


def compared(spent: dict[str, list[float]], calls: int = 1) -> dict[str, Any]:
    """Milliseconds a call, and ratios to the first way round by round."""
    first = next(iter(spent))
    table: dict[str, Any] = {}
    for name, times in spent.items():
        table[name] = {"ms": round(1e3 * median(times) / calls, 2)}
        if name != first:
            table[name]["times_as_fast"] = spread([a / b for a, b in zip(spent[first], times, strict=True)], 2)
    return table


def kernels(rounds: int) -> dict[str, Any]:
    """One product by every way, over as many copies of a layer as do not fit a cache."""
    torch.manual_seed(0)
    weights = [torch.randn(3072, 1024) / 32 for _ in range(12)]
    quantised = [round_rows(weight) for weight in weights]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.quantized.engine = "fbgemm"
        packed = [
            torch.ops.quantized.linear_prepack(
                torch._make_per_channel_quantized_tensor(q, s, torch.zeros(len(q), dtype=torch.int32), 0), None
            )
            for q, s in quantised
        ]
        half = [torch.ops.quantized.linear_prepack_fp16(weight, None) for weight in weights]
    ways: dict[str, tuple[Sequence[Any], Callable[[Tensor, Any], Tensor]]] = {
        "float32": (weights, F.linear),
        "int8 (ours)": ([Int8Linear(w) for w in weights], lambda x, layer: layer(x)),
        "int8-dynamic (ours)": ([Int8Linear(w, passes=1) for w in weights], lambda x, layer: layer(x)),
        "torch dynamic int8": (packed, lambda x, w: torch.ops.quantized.linear_dynamic(x, w, True)),
        "torch float16 weights": (half, torch.ops.quantized.linear_dynamic_fp16),
        "torch int8 weight-only, bfloat16": (
            [(q, s.bfloat16()) for q, s in quantised],
            lambda x, w: torch._weight_int8pack_mm(x.bfloat16(), *w),
        ),
        "torch int8 weight-only, float32": (quantised, lambda x, w: torch._weight_int8pack_mm(x, *w)),
    }
    table: dict[str, Any] = {}
    for rows in ROWS:
        x = torch.randn(rows, 1024)

        def runs(name: str, x: Tensor = x) -> Callable[[], object]:
            layers, multiply = ways[name]
            return lambda: [multiply(x, layer) for layer in layers]

        # The last way takes seconds with many rows.
        named = [name for name in ways if rows == 1 or not name.endswith("only, float32")]
        table[str(rows)] = compared(together({name: runs(name) for name in named}, rounds), len(weights))
        wanted = F.linear(x, weights[0])
        for name in named:
            layers, multiply = ways[name]
            error = (multiply(x, layers[0]).float() - wanted).norm() / wanted.norm()
            table[str(rows)][name]["relative_error"] = float(f"{float(error):.2g}")
    return table


def decode(size: str, rounds: int) -> dict[str, Any]:
    """Steps of new tokens of a random decoder."""
    found = models(MiDashengLMConfig(encoder=ENCODER, text=SIZES[size], audio_token_id=3))
    table: dict[str, Any] = {"parameters": sum(p.numel() for p in found["float32"].decoder.parameters())}
    generator = torch.Generator().manual_seed(1)
    for rows in ROWS:
        prompts = [Prompt(torch.randint(10, 1000, (PROMPT,), generator=generator).tolist(), []) for _ in range(rows)]

        def answer(model: MiDashengLM, tokens: int, prompts: list[Prompt] = prompts) -> list[Any]:
            return generate(model, prompts, SamplingParams(max_new_tokens=tokens), eos_token_ids=())

        first = together({kind: lambda m=model: answer(m, 1) for kind, model in found.items()}, rounds)
        whole = together({kind: lambda m=model: answer(m, 1 + STEPS) for kind, model in found.items()}, rounds)
        steps = {
            kind: [max(all_ - start, 1e-9) for all_, start in zip(whole[kind], first[kind], strict=True)]
            for kind in found
        }
        table[str(rows)] = compared(steps, STEPS)
    ids = torch.randint(10, 1000, (2, 64), generator=generator)
    with torch.inference_mode():
        logits = {kind: model(ids, []).float() for kind, model in found.items()}
    for kind in KINDS[1:]:
        error = (logits[kind] - logits["float32"]).norm() / logits["float32"].norm()
        table[f"logit_error_{kind}"] = float(f"{float(error):.2g}")
    return table


def encode(rounds: int) -> dict[str, Any]:
    """One clip of 10 s through encoder and projector of base size."""
    config = DashengConfig(embed_dim=768, depth=12, num_heads=12, attend="whole")
    text = replace(SIZES["0.1b"], num_hidden_layers=1, vocab_size=64)
    found = models(MiDashengLMConfig(encoder=config, text=text, audio_token_id=3))
    clip = 0.1 * torch.randn(160_000)
    with torch.inference_mode():
        del found["int8"]
        table = compared(together({k: lambda m=m: m.audio_tokens([clip]) for k, m in found.items()}, rounds))
        wanted = found["float32"].audio_tokens([clip])[0]
        for kind in KINDS[2:]:
            error = (found[kind].audio_tokens([clip])[0] - wanted).norm() / wanted.norm()
            table[kind]["relative_error"] = float(f"{float(error):.2g}")
    return table


def pick_clips(folder: Path | None, count: int) -> list[Any]:
    """Files of a folder, evenly spread, or tones in noise."""
    if folder is not None:
        files = sorted(p for p in folder.rglob("*") if p.suffix in (".wav", ".flac", ".ogg"))
        return files[:: max(1, len(files) // count)][:count]
    rng = np.random.default_rng(3)
    time_s = np.arange(64_000) / 16_000
    return [
        (
            0.2 * np.sin(2 * np.pi * rng.uniform(100, 3000) * time_s) * np.sin(2 * np.pi * rng.uniform(0, 3) * time_s)
            + rng.uniform(0.001, 0.1) * rng.standard_normal(time_s.size)
        ).astype(np.float32)
        for _ in range(count)
    ]


def answers(clips: Sequence[Any]) -> dict[str, Any]:
    """Captions of the embedded model in each precision, and the loss of those in float32."""
    found = {"float32": load_midashenglm("auricle-tiny")}
    found |= {kind: load_midashenglm("auricle-tiny", quantize=kind) for kind in KINDS[1:]}
    lm = found["float32"]
    writer = prompt_writer(lm)
    parts = [{"type": "text", "text": CAPTION_PROMPT}]
    prompts = [
        writer.write([{"role": "user", "content": [{"type": "audio", "audio": as_clip(clip)}, *parts]}])
        for clip in clips
    ]
    given = {kind: captions(loaded, prompts) for kind, loaded in found.items()}
    table: dict[str, Any] = {"clips": len(prompts)}
    for kind, loaded in found.items():
        losses = [loss(loaded.model, p, ids) for p, ids in zip(prompts, given["float32"], strict=True)]
        table[kind] = {"loss": round(float(np.mean(losses)), 5)}
        if kind != "float32":
            same = [a == b for a, b in zip(given[kind], given["float32"], strict=True)]
            table[kind]["same_captions"] = round(float(np.mean(same)), 4)
    return table


def captions(loaded: LoadedLM, prompts: list[Prompt]) -> list[list[int]]:
    """Greedy answers."""
    made: list[list[int]] = []
    for start in range(0, len(prompts), 8):
        batch = prompts[start : start + 8]
        sampling = SamplingParams(max_new_tokens=64)
        answers_ = generate(loaded.model, batch, sampling, eos_token_ids=loaded.eos_token_ids)
        made += [answer.ids for answer in answers_]
    return made


@torch.inference_mode()
def loss(model: nn.Module, prompt: Prompt, ids: list[int]) -> float:
    """Nats a token of an answer."""
    whole = torch.tensor([[*prompt.input_ids, *ids]])
    logits = model(whole, prompt.clips)[0, len(prompt.input_ids) - 1 : -1].float()
    return float(F.cross_entropy(logits, torch.tensor(ids)))


def main() -> None:
    """Measure, print, store."""
    parser = options(__doc__, rounds=5, threads=1)
    parser.add_argument("--sizes", nargs="*", default=["0.1b", "0.6b"], choices=SIZES)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--count", type=int, default=64, help="clips that are captioned")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    results: Row = {"threads": given.threads, "rounds": given.rounds, **machine()}
    results["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "kernels_3072x1024": lambda: kernels(given.rounds),
        "encoder_base_10s": lambda: encode(given.rounds),
        "answers_auricle_tiny": lambda: answers(pick_clips(given.clips, given.count)),
        **{f"decode_{size}": lambda size=size: decode(size, given.rounds) for size in given.sizes},
    }
    for name, part in parts.items():
        with torch.inference_mode():
            results[name] = part()
    write(results, given, lambda found: print(json.dumps(found, indent=1)))


if __name__ == "__main__":
    main()
