"""The verb that measures: heldout."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.options import AsJson, Device
from auricle.cli.output import print_line, print_result, progress
from auricle.errors import AuricleError

if TYPE_CHECKING:
    from auricle.bench.heldout import Answer, Embed, Rank
    from auricle.data.shards import ShardSet
    from auricle.encode.encoder import Encoder
    from auricle.listen.model import AudioLM
    from auricle.metrics.intervals import Score


def heldout(
    shards: Annotated[Path, typer.Argument(metavar="TEST_SHARDS", help="Clips the models were not trained on.")],
    train: Annotated[
        Path | None, typer.Option("--train", help="Shards to train the probes on; without them no encoder rows.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Language model: name, hub id or folder.")] = "auricle-tiny",
    encoder: Annotated[
        str, typer.Option("--encoder", help="Encoder: name, hub id, folder or file.")
    ] = "auricle-tiny-encoder",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most clips of one row; all by default.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the mixtures made from the clips.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips in one batch.")] = 32,
    device: Device = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the table here, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure models on clips they were not trained on.

    Each row has its 95 % interval: Wilson's for shares, a bootstrap over speakers for the word error rate.

    An older file of the table is replaced.

    Example: auricle heldout shards/test --train shards/train -o table.json
    """
    import auricle
    from auricle.bench.heldout import encoder_rows, language_model_rows
    from auricle.data.shards import ShardSet
    from auricle.files import check_writable, write_json
    from auricle.weights.loaders import device_of

    if output:
        check_writable(output)

    started = time.monotonic()
    test = ShardSet(shards)
    known = ShardSet(train) if train else None
    with progress(f"loading {model}", quiet=as_json):
        loaded = auricle.load(model, device=device)
    answer, rank = _answers_of(loaded, batch_size), _ranks_of(loaded, batch_size)
    rows = language_model_rows(answer, test, rank=rank, seed=seed, limit=limit)
    report: dict[str, Any] = {
        "rows": {},
        "model": {key: value for key, value in loaded.loaded.identity.items() if key != "path"},
        "encoder": None,
        "device": str(device_of(device)),
        "test": _facts(test),
        "train": None,
        "seed": seed,
        "limit": limit,
        "version": auricle.__version__,
    }
    if known:
        embedder = auricle.load_encoder(encoder, device=device)
        rows |= encoder_rows(_embeddings_of(embedder), known, test, limit=limit)
        report |= {"encoder": {"name": embedder.name, "fingerprint": embedder.fingerprint}, "train": _facts(known)}
    report["rows"] = {name: _plain(score) for name, score in rows.items()}
    report["seconds"] = round(time.monotonic() - started, 1)
    if output:
        write_json(output, report)
    print_result(report, _table(rows), as_json=as_json)


def _answers_of(model: AudioLM, batch_size: int) -> Answer:
    from auricle.bench.heldout import Reply

    def answer(clips: list[Any], prompt: str) -> list[Reply]:
        started = time.monotonic()
        answers = []
        results = model.ask_many(clips, prompt, batch_size=batch_size)
        with progress(prompt, len(clips)) as advance:
            for result in results:
                if isinstance(result, AuricleError):
                    raise result
                answers.append(Reply(result.text, result.confidence))
                advance()
        print_line(f"{len(clips)} clips in {time.monotonic() - started:.0f} s: {prompt}", err=True)
        return answers

    return answer


def _ranks_of(model: AudioLM, batch_size: int) -> Rank:
    def rank(clips: list[Any], question: str, options: Sequence[str]) -> list[list[str]]:
        ranked = []
        with progress(f"{question} {len(options)} labels", len(clips)) as advance:
            for result in model.choose_many(clips, question, options, batch_size=batch_size):
                if isinstance(result, AuricleError):
                    raise result
                ranked.append([each.text for each in sorted(result.odds, key=lambda each: -each.probability)])
                advance()
        return ranked

    return rank


def _embeddings_of(encoder: Encoder) -> Embed:
    def embed(clips: list[Any]) -> Any:
        started = time.monotonic()
        vectors = encoder.embed(clips)
        print_line(f"{len(clips)} clips in {time.monotonic() - started:.0f} s: embedded", err=True)
        return vectors

    return embed


def _facts(shards: ShardSet) -> dict[str, Any]:
    return {"clips": len(shards), "manifest": shards.manifest_hash}


def _plain(score: Score) -> dict[str, float | int | None]:
    """Plain values of JSON; a row without clips has no value."""
    return {key: None if math.isnan(value) else round(value, 6) for key, value in score._asdict().items()}


def _table(rows: dict[str, Score]) -> Iterator[str]:
    width = max(len(name) for name in rows)
    yield f"{'':{width}}  {'value':>7}  {'95 % interval':>17}  {'clips':>6}"
    for name, score in rows.items():
        interval = f"{100 * score.low:6.1f} - {100 * score.high:.1f} %" if score.n else "no such clips"
        value = f"{100 * score.value:5.1f} %" if score.n else ""
        yield f"{name:{width}}  {value:>7}  {interval:>17}  {score.n:6}"
