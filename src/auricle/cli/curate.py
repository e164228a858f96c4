"""The verb filter, and those of the caption factory: curate run, curate report, curate review, curate plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auricle.cli.inputs import find_sources
from auricle.cli.options import FAILED, AlignOptions, AsJson, DeviceOptions, Seed, with_groups
from auricle.cli.output import named, print_result, progress, table_lines, warn

if TYPE_CHECKING:
    from auricle.curate.factory.clips import Source
    from auricle.curate.factory.config import CaptionConfig
    from auricle.curate.factory.plan import Cost
    from auricle.curate.factory.run import Made
    from auricle.curate.filter import Filtered

curate = typer.Typer(no_args_is_help=True, help="Caption audio with evidence: run, report, review, plan.")

_NAMED = 5  # failures that are named
_CONFIGS = (".yaml", ".yml")
_MANIFESTS = (".jsonl", ".csv", ".tsv")

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]


@dataclass(frozen=True, kw_only=True)
class WorkOptions(DeviceOptions):
    """What experts see, and where they run."""

    model: Annotated[str, typer.Option("--model", help="Audio language model of the experts that use one.")] = (
        "auricle-tiny"
    )
    experts: Annotated[
        str | None,
        typer.Option(
            "--experts",
            help="Names between commas; tags, voice, music, level, noise, bandwidth, reverberation, tempo, key are "
            "those by default; also silero-vad, whisper:SIZE, transformers:NAME and those of installed packages.",
        ),
    ] = None
    clip_s: Annotated[float, typer.Option("--clip-s", help="Longest clip, s; longer sources are cut.")] = 10.0
    licences: Annotated[
        list[str] | None, typer.Option("--license", help="Only clips that state this licence; repeat.")
    ] = None
    aligner: Annotated[
        str, typer.Option("--filter", metavar="MODEL", help="Audio–text model that keeps the clips captions fit.")
    ] = ""
    p: Annotated[float, typer.Option("--p", help="Of the filter: of random captions, this share passes.")] = 0.01


@dataclass(frozen=True, kw_only=True)
class WriterOptions:
    """A language model behind an OpenAI-compatible server."""

    llm_url: Annotated[str, typer.Option("--llm-url", help="Server that writes captions, up to and with /v1.")] = ""
    llm_model: Annotated[str, typer.Option("--llm-model", help="Name of its model.")] = ""
    llm_key_variable: Annotated[
        str, typer.Option("--llm-key-env", metavar="NAME", help="Environment variable that has its API key.")
    ] = ""
    llm_concurrency: Annotated[int, typer.Option("--llm-concurrency", min=1, help="Requests at once.")] = 4
    llm_per_minute: Annotated[float | None, typer.Option("--llm-per-minute", help="Most requests a minute.")] = None
    llm_max_tokens: Annotated[int, typer.Option("--llm-max-tokens", min=800, help="Tokens of an answer.")] = 3600
    llm_prices: Annotated[
        tuple[float, float],
        typer.Option("--llm-prices", metavar="IN OUT", help="Of a million tokens of prompts and of answers."),
    ] = (0.0, 0.0)
    llm_max_cost: Annotated[float | None, typer.Option("--llm-max-cost", help="Stop asking at this cost.")] = None


@dataclass(frozen=True, kw_only=True)
class DecisionOptions:
    """What decides about a pair, see `auricle.curate.decision.FilterConfig`."""

    caption: Annotated[str, typer.Option("--caption", help="Fact that has the caption, or a list of captions.")] = (
        "caption"
    )
    p: Annotated[float, typer.Option("--p", help="Keep up to this p value: of random pairs, this share passes.")] = 0.01
    drop_p: Annotated[float, typer.Option("--drop-p", help="Drop above this p value; review between.")] = 0.1
    random_captions: Annotated[
        int, typer.Option("--random-captions", help="Random captions that each clip is compared with.")
    ] = 30
    top: Annotated[int, typer.Option("--top", help="Place the own caption must reach among these; review below.")] = 3
    near: Annotated[
        float, typer.Option("--near", help="Cosine from which two clips are nearly the same; 1: never.")
    ] = 0.995
    alike: Annotated[
        float, typer.Option("--alike", help="Cosine from which captions say the same; 1: equal words only.")
    ] = 1.0
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Only mark the same and nearly the same clips.")
    ] = False
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random pairs.")] = 0


@with_groups
def filter(
    shards: Annotated[list[Path] | None, typer.Argument(metavar="SHARDS", help="Folders of shards, or tars.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the result; with --undo, of the restored tars.")
    ] = None,
    undo: Annotated[
        Path | None,
        typer.Option("--undo", metavar="OUT", help="Restore the shards that OUT was made of, byte for byte."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object, the summary.")] = False,
    *,
    aligning: AlignOptions,
    decision: DecisionOptions,
) -> None:
    """Sort pairs of audio and captions into those to keep, to review and to drop.

    Each pair is compared with random ones of its domain and language, sampled from the shards themselves. The shards
    are only read. A run that was stopped continues; OUT/report.html shows what was found.

    Example: auricle filter shards/mine -o filtered
    """
    if undo is not None:
        if shards:
            raise typer.BadParameter("takes no shards; it restores those of OUT", param_hint="--undo")
        _undo(undo, output, as_json=as_json)
        return
    if not shards:
        raise typer.BadParameter("name folders of shards, or tars", param_hint="SHARDS")
    if output is None:
        raise typer.BadParameter("name a folder for the result", param_hint="--output")

    from auricle.curate.decision import FilterConfig
    from auricle.curate.filter import filter_shards
    from auricle.data.shards import ShardSet
    from auricle.files import check_folder

    config = FilterConfig(**asdict(decision))
    check_folder(output)
    clips = ShardSet(shards)
    aligner = aligning.load(quiet=as_json)
    with (
        progress("embedding", len(clips), quiet=as_json) as on_pairs,
        progress("splitting", len(clips.shards), quiet=as_json) as on_tar,
    ):
        found = filter_shards(clips, output, aligner, config, on_pairs=on_pairs, on_tar=lambda tar: on_tar())
    for key, error in found.failed[:_NAMED]:
        warn(named(key, error))
    if (more := len(found.failed) - _NAMED) > 0:
        warn(f"{more} more clips that could not be processed; see {output / 'scores.jsonl'}")
    clips_and_texts = dict(zip(("sounds", "texts"), found.encoded, strict=True))
    record = {**found.summary, "output": str(output), "encoded": clips_and_texts}
    print_result(record, _filter_lines(found, output), as_json=as_json)
    if found.failed:
        raise typer.Exit(FAILED)


@curate.command()
@with_groups
def run(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Audio, folders of it, manifests, shards; or one .yaml of settings."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; an earlier one is continued.")],
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes; 0: none beside this one. [default: 1]")
    ] = None,
    as_json: AsJson = False,
    *,
    work: WorkOptions,
    writer: WriterOptions,
) -> None:
    """Caption audio: experts state facts, a writer makes captions and questions of them, each with its evidence.

    OUT/shards has the captioned clips, OUT/mecat the same as test files; OUT/dead_letters.jsonl what failed. A run that
    was stopped continues with the same command.

    Example: auricle curate run recordings -o captioned
    """
    from auricle.curate.factory.endpoint import Endpoint
    from auricle.curate.factory.rewriting import Rewriter
    from auricle.curate.factory.run import caption_sources
    from auricle.files import check_folder

    config = _config(inputs, work, writer)
    if workers is not None:
        config = replace(config, workers=workers)
    check_folder(output)
    endpoint = config.endpoint()
    with ExitStack() as shown:
        made = caption_sources(
            _sources(config.input),
            output,
            config.work(output),
            config.settings(),
            rewriter=None if endpoint is None else Rewriter(Endpoint(endpoint)),
            on_stage=_bars(shown, quiet=as_json),
        )
    for letter in made.dead[:_NAMED]:
        warn(named(letter.key, f"{letter.stage} {letter.expert}: {letter.reason}"))
    if (more := len(made.dead) - _NAMED) > 0:
        warn(f"{more} more failures; see {output / 'dead_letters.jsonl'}")
    print_result({**made.summary, "output": str(output)}, _run_lines(made, output), as_json=as_json)
    if made.dead:
        raise typer.Exit(FAILED)


@curate.command()
def report(
    folder: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Page [default: RUN/report.html].")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write a page of a run: domains, words, speed of each expert, examples with players and evidence.

    Example: auricle curate report captioned
    """
    from auricle.curate.factory.pages import write_report

    with progress("writing the page", quiet=as_json):
        path = write_report(folder, output, seed)
    print_result({"file": str(path)}, [str(path)], as_json=as_json)


@curate.command()
def review(
    folder: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Page [default: RUN/review.html].")] = None,
    clips: Annotated[int, typer.Option("--clips", min=1, max=2000, help="Most clips on the page.")] = 100,
    verdicts: Annotated[
        list[Path] | None, typer.Option("--verdicts", help="File that a reviewer saved from the page; repeat.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write a page on which captions are accepted or rejected by keyboard; with files of verdicts, how they agree.

    Example: auricle curate review captioned --verdicts mine.json --verdicts yours.json
    """
    from auricle.curate.factory.pages import write_review
    from auricle.curate.factory.results import read_summary
    from auricle.curate.factory.review import accepted_share, agreement, read_verdicts

    manifest = read_summary(folder)["manifest"]
    read = [read_verdicts(path, manifest) for path in verdicts or []]
    with progress("writing the page", quiet=as_json):
        path = write_review(folder, output, clips=clips, seed=seed, verdicts=read)
    judged = [each.verdicts for each in read]
    found, accepted = agreement(judged), accepted_share(judged)
    lines = [str(path)]
    if accepted is not None:
        lines.append(f"{accepted:.1%} accepted, by {len(read)} reviewers")
    if found.share is not None:
        kappa = "not defined" if found.kappa is None else f"{found.kappa:.2f}"
        lines.append(f"{found.clips} clips judged by two or more: {found.share:.1%} equal, kappa {kappa}")
    print_result({"file": str(path), "accepted": accepted, "agreement": found._asdict()}, lines, as_json=as_json)


@curate.command()
def plan(
    folder: Run,
    hours: Annotated[float, typer.Option("--hours", help="Audio to plan for; 263000 is ACAV100M.")],
    cores: Annotated[int, typer.Option("--cores", min=1, help="Processor cores.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="GPUs, for experts that were measured on one.")] = 0,
    core_hour: Annotated[float, typer.Option("--core-hour", min=0, help="Price of an hour of a core.")] = 0.0,
    gpu_hour: Annotated[float, typer.Option("--gpu-hour", min=0, help="Price of an hour of a GPU.")] = 0.0,
    llm_prices: Annotated[
        tuple[float, float],
        typer.Option("--llm-prices", metavar="IN OUT", help="Of a million tokens of prompts and of answers."),
    ] = (0.0, 0.0),
    as_json: AsJson = False,
) -> None:
    """Print time and money of each stage for so much audio, from what a run has measured.

    Example: auricle curate plan captioned --hours 263000 --cores 512 --core-hour 0.03
    """
    from auricle.curate.factory.plan import Prices
    from auricle.curate.factory.plan import plan as make_plan
    from auricle.curate.factory.results import read_summary

    prices = Prices(
        cores=cores,
        gpus=gpus,
        core_hour=core_hour,
        gpu_hour=gpu_hour,
        prompt_tokens=llm_prices[0],
        answer_tokens=llm_prices[1],
    )
    costs = make_plan(read_summary(folder), hours, prices)
    record = {"hours": hours, "prices": asdict(prices), "stages": [asdict(cost) for cost in costs]}
    print_result(record, _plan_lines(costs), as_json=as_json)


def _config(inputs: list[str], work: WorkOptions, writer: WriterOptions) -> CaptionConfig:
    """Of the file of settings, or of the options.

    Raises:
        typer.BadParameter: options that a file of settings has, or half of what a server needs.
    """
    from auricle.curate.factory.config import CaptionConfig, LLMConfig, read_config
    from auricle.curate.factory.experts import DEFAULT

    files = [name for name in inputs if name.lower().endswith(_CONFIGS)]
    if files:
        if len(inputs) > 1 or (work, writer) != (WorkOptions(), WriterOptions()):
            raise typer.BadParameter(
                "a file of settings stands alone: beside it, only --output, --workers and --json", param_hint="INPUT"
            )
        config, folder = read_config(files[0]), Path(files[0]).parent
        return replace(config, input=tuple(str(folder / name) for name in config.input))
    named_experts = [each.strip() for each in (work.experts or "").split(",") if each.strip()]
    if bool(writer.llm_url) != bool(writer.llm_model):
        raise typer.BadParameter("a server needs --llm-url and --llm-model", param_hint="--llm-url")
    llm = {name.removeprefix("llm_"): value for name, value in asdict(writer).items()}
    return CaptionConfig(
        input=tuple(inputs),
        experts=DEFAULT if work.experts is None else tuple(named_experts),
        model=work.model,
        device=work.device,
        clip_s=work.clip_s,
        licences=tuple(work.licences or ()),
        aligner=work.aligner,
        p=work.p,
        llm=LLMConfig(**llm) if writer.llm_url else None,
    )


def _sources(inputs: tuple[str, ...]) -> list[Source]:
    """Clips of shards, entries of manifests, and audio files under the names they have in their folder."""
    from auricle.curate.factory.clips import sources_of, sources_of_shards
    from auricle.data.manifest import Entry, read_manifest
    from auricle.data.shards import ShardSet

    found: list[Source] = []
    for name in inputs:
        path = Path(name)
        if path.suffix.lower() in _MANIFESTS:
            found += sources_of(read_manifest(path))
        elif path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
            found += sources_of_shards(ShardSet(path))
        else:
            files = [Path(each) for each in find_sources([name], must_exist=True)]
            found += sources_of(Entry(_name(file, path), file) for file in files)
    return found


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if folder.is_dir() and file.is_relative_to(folder) else str(file)


def _bars(shown: ExitStack, *, quiet: bool) -> Callable[[str, int], Callable[[int], None]]:
    """One bar after the other, a stage each."""

    def start(stage: str, total: int) -> Callable[[int], None]:
        shown.pop_all().close()
        return shown.enter_context(progress(stage, total, quiet=quiet))

    return start


def _run_lines(made: Made, output: Path) -> Iterator[str]:
    summary = made.summary
    yield (
        f"{summary['packed']} of {summary['clips']} clips captioned, {summary['packed_s'] / 3600:.2f} h, "
        f"by {summary['writer']} in {summary['seconds']:.1f} s"
    )
    yield "  " + ", ".join(f"{code} {count}" for code, count in summary["domains"].items())
    for kind, count in summary["dropped"].items():
        yield f"  left out, {kind}: {count}"
    for stage, count in summary["failed"].items():
        yield f"  failed, {stage}: {count}"
    rows: list[list[str]] = []
    for each in summary["throughput"]:
        speed = f"{each['audio_s'] / each['seconds']:.0f} x" if each["seconds"] else ""
        rows.append([each["stage"], each["expert"], str(each["clips"]), f"{each['seconds']:.1f} s", speed])
    yield from table_lines(("stage", "expert", "clips", "time", "speed"), rows) if rows else ()
    yield f"{output / 'shards'}"


def _plan_lines(costs: list[Cost]) -> Iterator[str]:
    from auricle.curate.factory.plan import total

    def row(cost: Cost) -> list[str]:
        unit = f"{cost.unit:.0f} tokens" if cost.device == "endpoint" else f"{cost.unit:.5f}"
        times = [f"{cost.share:.0%}", unit, f"{cost.hours:,.1f}", f"{cost.wall_h:,.1f}", f"{cost.money:,.2f}"]
        return [cost.stage, cost.expert, cost.device, *times]

    header = ("stage", "expert", "device", "share", "s per s", "hours", "wall h", "money")
    yield from table_lines(header, [row(cost) for cost in (*costs, total(costs))])


def _undo(out: Path, folder: Path | None, *, as_json: bool) -> None:
    from auricle.curate.filter import undo_filter

    for tar, existed in undo_filter(out, folder):
        line = f"{tar}: {'exists, byte for byte' if existed else 'restored'}"
        print_result({"file": str(tar), "restored": not existed}, [line], as_json=as_json)


def _filter_lines(found: Filtered, output: Path) -> Iterator[str]:
    from auricle.curate.summary import SIGNS

    summary, (clips, texts) = found.summary, found.encoded
    for name in ("keep", "review", "drop"):
        yield f"{name:7} {summary[name]:8} {summary[name] / summary['pairs']:7.1%}"
    for sign, count in summary["signs"].items():
        if count:
            yield f"  {SIGNS.get(sign, sign)}: {count}"
    yield (
        f"about {summary['mismatched_share']:.0%} of the pairs do not belong together; of random pairs "
        f"{summary['random_passing']:.2%} pass p = {summary['settings']['p']:g}"
    )
    yield f"{clips} clips and {texts} texts were encoded; {output / 'report.html'}"
