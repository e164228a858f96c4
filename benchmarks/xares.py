"""Our encoder benchmark against PyPI's `xares` 0.1.3: same audio tars, same encoder, same heads, side by side.

python benchmarks/xares.py DATA --reference PYTHON [--encoder NAME …] [--rounds 3] [--threads 2] [--json] [-o FILE]
python benchmarks/xares.py --quick --reference PYTHON

DATA is ESC-50, or a part of it, in its authors' layout; --quick makes noises up. PYTHON is that of an environment with
the reference: benchmarks/README.md says how to make one, benchmarks/xares_reference.py what is changed in it. A round
is one whole run of each side, a new process with an empty cache and a seed of its own; the order changes every
round. A ratio is the median over the rounds; only ratios carry over to other machines. Both sides run on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

import numpy as np
from esc_tars import CLIP_S, QUICK_S, Data, write_noises, write_tars
from pairs import machine, options, show, spread, write

SEED, MORE = 42, 1000  # of the first round, the reference's default; and between the two seeds of a round
OUR_SEEDS = 40  # of our linear heads, which cost little: what chance does to a mean over six seeds is a clip or two
ENCODERS = ("random:dasheng-base",)
ROWS = {
    "encode, s": "encode_s",
    "linear heads and kNN, s": "heads_s",
    "whole run, s": "whole_s",
    "whole run, CPU s": "cpu_s",
    "cache, bytes": "cache_bytes",
}
TARGETS = {"linear heads and kNN, s": 40.0, "whole run, s": 3.0, "cache, bytes": 50.0}
Facts = dict[str, Any]


def write_weights(name: str, file: Path, depth: int | None) -> str:
    """Write an encoder as the published checkpoints are, which both sides read; returns its description."""
    import torch

    from auricle.encode.names import open_frame_model, parse_name
    from auricle.weights.layouts import dasheng_to_zenodo

    part = parse_name(name)[0]
    opened: Any = open_frame_model(part, device="cpu", dtype="float32", revision=None, trust_code=False)
    network = opened.network
    if depth is not None:
        del network.blocks[depth:]
    config = {key: getattr(network.config, key) for key in ("embed_dim", "num_heads", "mlp_ratio")}
    config["depth"] = len(network.blocks)
    torch.save({"model": dasheng_to_zenodo(network.state_dict()), "config": config}, file)
    return f"{name}: Dasheng, {config['embed_dim']} wide, {config['depth']} blocks"


def task_of(folds: Sequence[int], classes: int) -> Any:
    """The declared ESC-50 with the folds and classes there are."""
    from auricle.bench.task import load_task

    tars = {str(fold): f"wds-audio-fold-{fold}-*.tar" for fold in folds}
    return replace(load_task("esc50"), folds=tuple(tars), tars=tars, classes=classes)


def our_run(spec: Facts) -> Facts:
    """Ours, in a process of its own: by the reference's rules, then, from the store, by the strict ones."""
    import torch

    import auricle
    from auricle.bench.results import write_result
    from auricle.bench.run import run_benchmark

    torch.set_num_threads(spec["threads"])
    task = task_of(spec["folds"], spec["classes"])
    encoder = auricle.load_encoder(spec["weights"], dtype=spec["dtype"])
    _ = encoder.fingerprint  # hashes the weights, once: part of the whole run, of no stage
    start_s = time.perf_counter()
    result = run_benchmark(encoder, task, spec["tars"], scoring_rule="compat", store=spec["store"], seed=spec["seed"])
    took_s = time.perf_counter() - start_s
    write_result(spec["results"], result)
    whole_s, cpu_s = time.time() - spec["started"], time.process_time()
    start_s = time.perf_counter()
    strict = run_benchmark(encoder, task, spec["tars"], scoring_rule="strict", store=spec["store"], seed=spec["seed"])
    strict_s = time.perf_counter() - start_s
    return {
        "encode_s": result.cost.encode_s,
        # All that is not encoding: reading labels, both heads, intervals, and the look for leaks.
        "heads_s": took_s - result.cost.encode_s,
        "whole_s": whole_s,
        "cpu_s": cpu_s,
        "cache_bytes": sum(file.stat().st_size for file in Path(spec["store"]).rglob("*") if file.is_file()),
        "encoded": result.cost.encoded,
        **{head: score.value for head, score in result.scores.items()},
        "strict": {head: score.value for head, score in strict.scores.items()},
        "strict_s": strict_s,
        "strict_encoded": strict.cost.encoded,
    }


def start(command: Sequence[str], spec: Facts, log: Path) -> Facts:
    """Run a side, wait, and read what it found; ends the script with its last words if it failed."""
    out = log.with_suffix(".json")
    # Threads that wait asleep: spinning ones lose much, and not alike, where other work keeps a core busy.
    threads = {"OMP_NUM_THREADS": str(spec["threads"]), "OMP_WAIT_POLICY": "PASSIVE"}
    env = {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # the reference starts isolated, from compiled files
    with log.open("w", encoding="utf-8") as file:
        given = json.dumps({**spec, "out": str(out), "started": time.time()})
        done = subprocess.run([*command, given], stdout=file, stderr=subprocess.STDOUT, env=env)
    if done.returncode or not out.is_file():
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-20:])
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{tail}")
    found: Facts = json.loads(out.read_text(encoding="utf-8"))
    return found


def start_reference(python: str, data: Data, spec: Facts, folder: Path) -> Facts:
    """One whole run of the reference in a folder of its own, which is deleted."""
    place = folder / "env" / "esc"
    place.mkdir(parents=True)
    for tar in data.folder.glob("*.tar"):
        (place / tar.name).symlink_to(tar)
    (place / ".audio_tar_ready").touch()  # else it downloads
    own = {"env": str(folder / "env"), "task": "esc", "pooled": str(folder / "reference.npy")}
    # Isolated, for this very script has the name of the package.
    command = [python, "-I", str(Path(__file__).with_name("xares_reference.py"))]
    found = start(command, {**spec, **own}, folder / "reference.log")
    shutil.rmtree(folder / "env")
    return {**found, "heads_s": found["mlp_s"] + found["knn_s"]}


def start_ours(data: Data, spec: Facts, folder: Path) -> Facts:
    """One whole run of ours; the store stays, to be compared."""
    own = {"tars": str(data.folder), "store": str(folder / "store"), "results": str(folder / "results")}
    return start([sys.executable, __file__, "--one-run"], {**spec, **own}, folder / "ours.log")


def read_embeddings(data: Data, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean frames of all clips as our store and the reference's tars hold them, each (n, D)."""
    from safetensors.torch import load_file

    ours: dict[str, np.ndarray] = {}
    for segment in (folder / "store").rglob("*.safetensors"):
        stored = load_file(segment)
        rows = zip(stored["digests"].numpy(), stored["pooled"].numpy(), strict=True)
        ours |= {bytes(digest).hex(): row for digest, row in rows}
    theirs = np.load(folder / "reference.npy")
    if len(theirs) != len(data.digests):
        sys.exit(f"the reference stored {len(theirs)} of {len(data.digests)} clips; see {folder / 'reference.log'}")
    return np.stack([ours[digest] for digest in data.digests]), theirs


def distance(ours: np.ndarray, theirs: np.ndarray) -> Facts:
    """How far apart a clip's embeddings are, in units of the distance to the mean clip."""
    distances = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs - theirs.mean(0), axis=1)
    if np.median(distances) > 0.5:  # two unrelated clips are about 1.4 apart
        sys.exit(f"embeddings differ by {np.median(distances):.3f} of their spread; this is not the same encoder")
    return spread(distances.tolist())


def score_heads(data: Data, rows: np.ndarray) -> dict[str, list[float]]:
    """Scores of our heads on embeddings (n, D) by the reference's rules, the linear ones from many seeds."""
    import torch

    from auricle.bench.embedded_task import EmbeddedTask
    from auricle.bench.xares import score_knn, score_linear_head

    torch.set_num_threads(1)
    embedded = EmbeddedTask(
        task=task_of(data.folds, data.classes),
        ids=data.digests,
        splits=data.splits,
        labels=torch.tensor(data.labels),
        classes=[str(number) for number in range(data.classes)],
        features=torch.from_numpy(rows),
        owners=torch.arange(len(rows)),
    )
    mlp = [score_linear_head(embedded, "compat", seed=SEED + number).score.value for number in range(OUR_SEEDS)]
    return {"mlp": mlp, "knn": [score_knn(embedded, "compat").score.value]}


def ratio(name: str, key: str, pairs: Sequence[tuple[Facts, Facts]]) -> Facts:
    """A row: how many times as much as ours the reference takes."""
    row: Facts = {
        "name": name,
        "ratio": spread([theirs[key] / ours[key] for ours, theirs in pairs]),
        "ours": round(median(ours[key] for ours, _ in pairs), 3),
        "reference": round(median(theirs[key] for _, theirs in pairs), 3),
    }
    if name in TARGETS:
        row |= {"target": TARGETS[name], "reached": row["ratio"]["median"] >= TARGETS[name]}
    return row


def compare_scores(ours: Sequence[float], theirs: Sequence[float], crossed: Sequence[float], clips: int) -> Facts:
    """Scores over the seeds. Equal: our mean lies between the reference's lowest and highest, give or take one clip."""
    slack = 1 / clips + 1e-9
    low, high = min(theirs) - slack, max(theirs) + slack
    return {
        "ours": summary(ours),
        "reference": summary(theirs),
        "our_heads_on_its_embeddings": summary(crossed),
        "equal": low <= mean(ours) <= high,
        "equal_on_its_embeddings": low <= mean(crossed) <= high,
    }


def summary(scores: Sequence[float]) -> Facts:
    """Mean and spread over the seeds."""
    figures = {"mean": mean(scores), "sd": pstdev(scores), "min": min(scores), "max": max(scores)}
    return {"seeds": len(scores), **{name: round(value, 4) for name, value in figures.items()}}


def play(args: argparse.Namespace, data: Data, spec: Facts, work: Path) -> list[tuple[Facts, Facts]]:
    """All rounds of an encoder: what ours and the reference found."""
    pairs = []
    for turn in range(args.rounds):
        folder = work / f"round-{turn}"
        folder.mkdir()
        own = {**spec, "seed": SEED + turn, "more_seeds": [SEED + turn + MORE]}
        found = {}
        for side in ("ours", "reference") if turn % 2 else ("reference", "ours"):
            if side == "ours":
                found[side] = start_ours(data, own, folder)
            else:
                found[side] = start_reference(args.reference, data, own, folder)
            shown = ", ".join(f"{key} {value:.2f}" for key, value in found[side].items() if key.endswith("_s"))
            print(f"round {turn + 1}, {side}: {shown}", file=sys.stderr)
        pairs.append((found["ours"], found["reference"]))
    return pairs


def measure(name: str, args: argparse.Namespace, data: Data, work: Path) -> Facts:
    """One encoder: all rounds, and what they say."""
    work.mkdir()
    spec: Facts = {"weights": str(work / "weights.pt"), "folds": data.folds, "classes": data.classes}
    about = write_weights(name, work / "weights.pt", 2 if args.quick else None)
    spec |= {"dtype": args.dtype, "threads": args.threads, "head_threads": args.reference_head_threads}
    pairs = play(args, data, spec, work)
    theirs = {
        "mlp": [each["mlp"] for _, side in pairs for each in (side, *side["more_mlp"])],
        "knn": [side["knn"] for _, side in pairs],
    }
    own, stored = read_embeddings(data, work / "round-0")
    gap = distance(own, stored)
    ours, crossed = score_heads(data, own), score_heads(data, stored)
    runs = [side["mlp"] for side, _ in pairs]  # seeds are counted from the same number
    assert np.allclose(runs, ours["mlp"][: len(runs)]), f"whole runs gave {runs}, heads alone {ours['mlp'][:3]}"
    return {
        "encoder": about,
        "rows": [ratio(row, key, pairs) for row, key in ROWS.items()],
        "reference_stages_s": {
            "mlp": spread([side["mlp_s"] for _, side in pairs]),
            "mlp on the encoder's threads": spread([each["mlp_s"] for _, side in pairs for each in side["more_mlp"]]),
            "knn": spread([side["knn_s"] for _, side in pairs]),
        },
        "scores": {
            head: compare_scores(ours[head], theirs[head], crossed[head], len(data.digests)) for head in ("mlp", "knn")
        },
        "embedding_distance": gap,
        "second_protocol": {
            "encoded": max(side["strict_encoded"] for side, _ in pairs),
            "seconds": round(median(side["strict_s"] for side, _ in pairs), 3),
            **{head: round(mean(side["strict"][head] for side, _ in pairs), 4) for head in ("mlp", "knn")},
        },
    }


def run_all(args: argparse.Namespace, work: Path) -> Facts:
    """All encoders, with the facts their figures depend on."""
    facts, source = machine(), args.data
    if args.quick:
        source = work / "noises"
        write_noises(source)
    data = write_tars(source, work, QUICK_S if args.quick else CLIP_S)
    found = [measure(name, args, data, work / f"encoder-{number}") for number, name in enumerate(args.encoder)]
    return {
        "encoders": found,
        "data": {"clips": len(data.digests), "folds": len(data.folds), "classes": data.classes, "quick": args.quick},
        "rounds": args.rounds,
        "dtype": {"ours": args.dtype, "reference": "float32"},
        "threads": {"encoding": args.threads, "our heads": 1, "reference heads": args.reference_head_threads},
        **facts,
        "load_after": round(os.getloadavg()[0], 2),
    }


def show_encoders(results: Facts) -> None:
    """A table of each encoder, and the facts they all depend on."""
    for found in results["encoders"]:
        print(found["encoder"])
        for row in found["rows"]:
            ratios, wanted = row["ratio"], f", target {row['target']:g}" if "target" in row else ""
            print(
                f"  {row['name']:24} {ratios['median']:7.2f} × ({ratios['min']:.2f}-{ratios['max']:.2f}{wanted}), "
                f"{row['ours']:g} against {row['reference']:g}"
            )
        show({key: value for key, value in found.items() if key not in ("encoder", "rows")})
    show({key: value for key, value in results.items() if key != "encoders"})


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, rounds=3, threads=2)
    parser.add_argument("data", type=Path, nargs="?", help="folder of ESC-50: meta/esc50.csv and audio/")
    parser.add_argument("--reference", help="Python of an environment with xares 0.1.3 and dasheng 0.0.9")
    parser.add_argument("--encoder", nargs="+", default=ENCODERS, help="any Dasheng that auricle.load_encoder knows")
    parser.add_argument("--dtype", default="float32", help="of our network; the reference's is float32")
    parser.add_argument("--reference-head-threads", type=int, default=1, help="by itself it would take two")
    parser.add_argument("--quick", action="store_true", help="two rounds with two blocks on noises: does it run?")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder for tars, logs and stores, not deleted")
    parser.add_argument("--one-run", metavar="SPEC", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one_run:
        spec = json.loads(args.one_run)
        Path(spec["out"]).write_text(json.dumps(our_run(spec)), encoding="utf-8")
        return
    if not args.reference or (args.data is None) != args.quick:
        parser.error("give --reference, and either DATA or --quick")
    args.rounds = 2 if args.quick else args.rounds
    with tempfile.TemporaryDirectory() as aside:
        work = args.keep or Path(aside) / "work"
        work.mkdir(parents=True)
        results = run_all(args, work.resolve())
    write(results, args, show_encoders)


if __name__ == "__main__":
    main()
