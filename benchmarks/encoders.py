"""The open tasks under both protocols for the embedded encoder, the baselines, and networks that were never trained.

python benchmarks/encoders.py DATA WORK [--encoders NAME ...] [--tasks NAME ...] [-o FILE.json]

DATA holds ``esc10``, ``fsdd`` and ``speechocean762`` in their authors' layouts. WORK keeps embeddings and full
results; what is there is not measured again. Prints a Markdown table; FILE gets scores, intervals, hashes and costs
without the items. Transcripts check the plumbing alone: one in sixteen utterances, two epochs of ten.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ASR = "speechocean762_asr"
FOLDERS = {
    "speechocean762_gender": "speechocean762",
    "speechocean762_speaker": "speechocean762",
    "esc10": "esc10",
    "fsdd_digits": "fsdd",
    "fsdd_speaker": "fsdd",
    ASR: "speechocean762",
}
ENCODERS = (
    "auricle-tiny-encoder",
    "log-mel",
    "random:dasheng-tiny",
    "random:whisper-tiny",
    "random:wav2vec2-tiny",
    "random:hubert-tiny",
)
RULES = ("compat", "strict")
ASR_SHARE, ASR_EPOCHS = 16, 2  # of utterances one in sixteen, of ten epochs two: a check of the plumbing in minutes


def measure(data: Path, work: Path, encoders: list[str], tasks: list[str]) -> list[Any]:
    """All results; those in WORK are read."""
    import auricle
    from auricle.bench.results import read_results, write_result
    from auricle.bench.run import run_benchmark
    from auricle.bench.task import load_task

    work.mkdir(parents=True, exist_ok=True)
    done = read_results([work]) if list(work.glob("*.json")) else []
    found = {(each.encoder.name, each.task.name, each.scoring_rule): each for each in done}
    made = {name: load_task(name) for name in tasks}
    folders = {name: data / FOLDERS[name] for name in tasks}
    if ASR in made:
        made[ASR] = replace(made[ASR], epochs=ASR_EPOCHS)
        folders[ASR] = share_of(made[ASR], folders[ASR], work / f"{ASR}.jsonl")
    loaded = {name: auricle.load_encoder(name) for name in encoders}
    for key in ((name, task, rule) for task in tasks for name in encoders for rule in RULES):
        name, task, rule = key
        if key in found:
            continue
        found[key] = run_benchmark(loaded[name], made[task], folders[task], scoring_rule=rule, store=work / "store")
        write_result(work, found[key])
        print(*key, {head: round(score.value, 3) for head, score in found[key].scores.items()}, file=sys.stderr)
    return [found[e, t, p] for t in tasks for p in RULES for e in encoders]


def share_of(task: Any, folder: Path, manifest: Path) -> Path:
    """Write a manifest of one in `ASR_SHARE` utterance of each split."""
    from auricle.bench.examples import load_examples

    lines = [
        json.dumps(
            {"id": each.id.partition("/")[2], "audio": str(each.audio), "split": split, "text": each.label["text"]}
        )
        for split, examples in load_examples(task, folder).by_split.items()
        for each in examples[::ASR_SHARE]
    ]
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def summary(result: Any) -> dict[str, Any]:
    """A result without its items and classes."""
    content = {key: value for key, value in result.to_dict().items() if key != "items"}
    for score in content["scores"].values():
        del score["classes"]
    content["leaks"] = {kind: len(pairs) for kind, pairs in content["leaks"].items()}
    return content


def table(results: list[Any]) -> str:
    """Rows of encoders under each task and scoring rule."""
    lines = ["| task | protocol | encoder | linear | kNN |", "|---|---|---|---|---|"]
    for each in results:
        cells = []
        for head in ("mlp", "knn"):
            score = each.scores.get(head)
            cells.append("" if score is None else f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")
        if each.task.kind == "asr":
            # A share in [0, 1] hides how far from it most are.
            cells[0] += f", WER {each.scores['mlp'].settings['word_error_rate']:.2f}"
        lines.append(f"| {each.task.title} | {each.scoring_rule} | {each.encoder.name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), metavar="NAME")
    parser.add_argument("--tasks", nargs="+", default=list(FOLDERS), choices=list(FOLDERS))
    parser.add_argument("-o", "--out", type=Path, help="write the figures here")
    args = parser.parse_args()
    results = measure(args.data, args.work, args.encoders, args.tasks)
    print(table(results))
    if args.out is not None:
        args.out.write_text(
            "[\n" + ",\n".join(json.dumps(summary(each), ensure_ascii=False) for each in results) + "\n]\n"
        )


if __name__ == "__main__":
    main()
