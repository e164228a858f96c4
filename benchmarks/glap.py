"""Time our GLAP against PyPI's `glap_model` 0.0.13, audio tower of the published size, same random weights.

python benchmarks/glap.py [--rounds 3] [--threads 2] [--json] [-o FILE] [--quick]

Needs an environment that holds both; benchmarks/README.md says how to make one. Before anything is timed, our batch
must equal what the reference gives for each clip alone, by its own pooling. The reference pads a batch to its longest
clip and ignores the lengths, so what its batches give is of no use; how far off they are is a row of its own.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dasheng.pretrained.pretrained import Dasheng
from glap_model.models import GLAP
from glap_model.models.audioencoders import dasheng_audioencoder
from glap_model.models.textencoders import sonar_text_encoder
from pairs import compare, machine, options, spread, write
from torch import Tensor

from auricle.models.glap import Glap
from auricle.weights import load_glap

RATE = 16_000  # Hz
SHORTEST_S, LONGEST_S, CLIPS = 1.0, 30.0, 32


def make_clips(count: int, longest_s: float, seed: int = 0) -> list[Tensor]:
    """Swelling noises of evenly spread lengths in random order, (N_i,) each."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for duration_s in torch.linspace(SHORTEST_S, longest_s, count)[torch.randperm(count, generator=generator)].tolist():
        time_s = torch.arange(round(duration_s * RATE)) / RATE
        swell_hz, tone = torch.rand(2, generator=generator)
        noise = torch.randn(len(time_s), generator=generator)
        clips.append(0.1 * torch.sin(6.2832 * swell_hz * time_s) * noise + 0.1 * torch.sin(12_000 * tone * time_s))
    return clips


def make_reference(depth: int) -> GLAP:
    """PyPI's model with random weights; the input norm has the statistics of the test clips.

    It would download a Dasheng and a tokenizer, which are not used. The text tower, which is not timed, has one layer
    and a small vocabulary.
    """
    torch.manual_seed(0)
    tower = sonar_text_encoder.SonarTextEncoder
    sonar_text_encoder.SonarTextEncoder = lambda **sizes: tower(**{**sizes, "vocab_size": 1000, "num_layers": 1})
    sonar_text_encoder.load_tokenizer = lambda **_: None
    dasheng_audioencoder.dasheng_base = lambda **_: Dasheng(embed_dim=768, depth=depth, num_heads=12)
    model = GLAP().eval()
    encoder = model.audio_encoder.model
    mel = encoder.front_end(torch.cat(make_clips(8, 8.0)))
    encoder.init_bn[1].running_mean.copy_(mel.mean(-1))
    encoder.init_bn[1].running_var.copy_(mel.var(-1))
    return model


def take_over(reference: GLAP) -> Glap:
    """Our network with the reference's weights, the way a user would load them: from a checkpoint file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reference.pt"
        torch.save({"model": reference.state_dict(), "config": {}}, file)
        return load_glap(file).model


@torch.inference_mode()
def measure(rounds: int, quick: bool) -> dict[str, Any]:
    """Both ways the reference can be used, against ours."""
    depth, clips = (1, make_clips(4, 12.0)) if quick else (12, make_clips(CLIPS, LONGEST_S))
    reference = make_reference(depth)
    ours = take_over(reference)
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    alone = torch.cat([reference.encode_audio(clip[None]) for clip in clips])
    found = (ours.embed_audio(clips, pooling="v013") - alone).abs().max().item()
    assert found < 2e-5, f"the embeddings differ by {found}"
    cosines = F.cosine_similarity(reference.encode_audio(padded, lengths), alone)
    ways = {
        "its padded batch": lambda: reference.encode_audio(padded, lengths),
        "one clip at a time, as it evaluates": lambda: [reference.encode_audio(clip[None]) for clip in clips],
    }
    rows = []
    for name, theirs in ways.items():
        target = 2.0 if "batch" in name else None
        rows.append(compare(f"against {name}", lambda: ours.embed_audio(clips), theirs, rounds, target=target))
    return {
        "rows": rows,
        "clips": len(clips),
        "seconds_of_audio": round(lengths.sum().item() / RATE, 1),
        "max_abs_difference_to_its_single_clips": found,
        "cosine_of_its_padded_batch_to_its_single_clips": spread(cosines.tolist(), 4),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, rounds=3, threads=2)
    parser.add_argument("--quick", action="store_true", help="one block, few clips, one round: does it run at all?")
    args = parser.parse_args()
    facts = machine()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", module="torchaudio")
    results = measure(1 if args.quick else args.rounds, args.quick)
    write({**results, "quick": args.quick, "threads": args.threads, **facts}, args)


if __name__ == "__main__":
    main()
