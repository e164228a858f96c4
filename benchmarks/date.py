"""DATE over many clips: seconds and peak memory of each stage, and of the released way of computing it.

Token ids are sampled by Zipf's law, as many to a text as captions have; each stage runs in a process of its own.

    python benchmarks/date.py -o benchmarks/results/date.json     # 20,000 clips with 3 references
    python benchmarks/date.py --only whole                        # from token ids to scores, which takes long on a CPU
    python benchmarks/date.py --only whole --references 1 --words 4 8     # as MECAT's questions are
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pairs import Row, machine, options, write

from auricle.metrics.date import date_scores, mean_references
from auricle.metrics.soft_tfidf import soft_tfidf
from auricle.weights.sentence_encoders import load_sentence_encoder

WIDTH, DELTA = 384, 0.1703
OPENING, CLOSING, FIRST = 101, 102, 1996  # token ids: special, and the first whole word
VOCABULARY = 10_000  # words that occur; references of MECAT have about as many
STAGES = ("scores", "scores as released", "weights", "encoding", "whole")


def documents(count: int, words_of: tuple[int, int], seed: int) -> list[list[int]]:
    """Token ids of texts with the least and the most words given."""
    rng = np.random.default_rng(seed)
    words = FIRST + rng.zipf(1.2, (count, words_of[1])) % VOCABULARY
    lengths = rng.integers(words_of[0], words_of[1] + 1, count)
    return [[OPENING, *row[:length].tolist(), CLOSING] for row, length in zip(words, lengths, strict=True)]


def vectors(clips: int, references: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Captions (clips, D), and references (clips · references, D) that are as near to theirs as good ones are."""
    generator = torch.Generator().manual_seed(0)
    meant = torch.randn(clips, WIDTH, generator=generator)
    near = meant.repeat_interleave(references, 0) + torch.randn(clips * references, WIDTH, generator=generator)
    captions = meant + torch.randn(clips, WIDTH, generator=generator)
    return F.normalize(captions, dim=1), F.normalize(near, dim=1)


def scores(args: argparse.Namespace) -> dict[str, Any]:
    """From vectors to the scores of every clip."""
    found = vectors(args.clips, args.references)
    start = time.perf_counter()
    means = mean_references(found[1], [args.references] * args.clips)
    date = date_scores(found[0], means, delta=DELTA).date
    return {"s": time.perf_counter() - start, "clips": args.clips, "date": float(date.mean())}


def scores_as_released(args: argparse.Namespace) -> dict[str, Any]:
    """The same by a matrix of all pairs for each reference, their mean, and a loop over its rows."""
    clips = args.released_clips
    captions, references = vectors(clips, args.references)
    references = references.view(clips, args.references, -1)
    start = time.perf_counter()
    matrix = torch.stack([captions @ references[:, k].t() for k in range(args.references)]).mean(0)
    similarity = matrix.diagonal()
    found = torch.stack([(matrix[at] >= matrix[at, at] - DELTA / 2).sum() for at in range(clips)])
    discrimination = 1 - found / clips
    date = 2 * similarity * discrimination / (similarity + discrimination)
    return {"s": time.perf_counter() - start, "clips": clips, "date": float(date.mean())}


def weights(args: argparse.Namespace) -> dict[str, Any]:
    """TF-IDF of all references."""
    table = load_sentence_encoder().word_table
    texts = documents(args.clips * args.references, args.words, 2)
    start = time.perf_counter()
    soft_tfidf(texts, table, opening=OPENING, closing=CLOSING)
    tokens = len({token for text in texts for token in text})
    return {"s": time.perf_counter() - start, "texts": len(texts), "distinct_tokens": tokens}


def encoding(args: argparse.Namespace) -> dict[str, Any]:
    """Weighted texts through MiniLM."""
    encoder, texts = load_sentence_encoder(), documents(args.encoded, args.words, 2)
    own = [torch.ones(len(text)) for text in texts]
    encoder.encode_tokens(texts[:64], own[:64])
    start = time.perf_counter()
    encoder.encode_tokens(texts, own)
    seconds = time.perf_counter() - start
    return {"s": seconds, "texts": args.encoded, "texts_per_s": args.encoded / seconds}


def whole(args: argparse.Namespace) -> dict[str, Any]:
    """From token ids to scores."""
    encoder = load_sentence_encoder()
    texts = documents(args.clips, args.words, 1), documents(args.clips * args.references, args.words, 2)
    start = time.perf_counter()
    sides = [
        encoder.encode_tokens(each, soft_tfidf(each, encoder.word_table, opening=OPENING, closing=CLOSING))
        for each in texts
    ]
    means = mean_references(sides[1], [args.references] * args.clips)
    date = date_scores(sides[0], means, delta=DELTA).date
    return {"s": time.perf_counter() - start, "clips": args.clips, "date": float(date.mean())}


def alone(stage: str) -> dict[str, Any]:
    """A stage in a process of its own: its figures, processor seconds and peak memory."""
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--stage", stage], stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, threads=2)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--references", type=int, default=3, help="of each clip")
    parser.add_argument(
        "--released-clips", type=int, default=5000, help="of the released way, which needs their square"
    )
    parser.add_argument("--encoded", type=int, default=2000, help="texts that time the encoder")
    parser.add_argument("--words", type=int, nargs=2, default=(8, 20), help="least and most of a text")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES[:-1], help="stages")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.stage:
        before = time.process_time()
        found = globals()[args.stage.replace(" ", "_")](args)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "cpu_s": time.process_time() - before, "peak_rss_mb": peak}))
        return
    facts = {"threads": args.threads, "references": args.references, "words": list(args.words), **machine()}
    write({**facts, "stages": {stage: alone(stage) for stage in args.only}}, args, show_stages)


def show_stages(results: Row) -> None:
    """One a line."""
    for stage, found in results["stages"].items():
        print(f"{stage:20}" + "  ".join(f"{key} {value:.6g}" for key, value in found.items()))


if __name__ == "__main__":
    main()
