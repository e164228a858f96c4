"""The verbs that change what a model is given, audio or prompts: evaluate robustness and evaluate prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from auricle.cli.evaluate import load_detector, open_cache, read_task, scoring_config, split_task
from auricle.cli.listen import Adapter, AsJson, BatchSize, Device, Dtype, Quantize
from auricle.cli.options import (
    SCORING_RULES,
    Cache,
    Detector,
    Limit,
    MissingAnswers,
    ScoringRules,
    Seed,
    SentenceModel,
    TaskMaxNewTokens,
    Tasks,
    check_scoring,
)
from auricle.cli.output import print_json, print_line, progress
from auricle.cli.printing import Tally
from auricle.errors import AuricleError, ConfigError, MissingExtra

if TYPE_CHECKING:
    from auricle.evaluate.prompt_sensitivity import PromptSensitivity
    from auricle.evaluate.prompt_variants import Variant
    from auricle.evaluate.questions import Question
    from auricle.evaluate.robustness import Card
    from auricle.evaluate.run import Evaluator
    from auricle.evaluate.scores import ScoringConfig
    from auricle.evaluate.task import LanguageTask

Models = Annotated[list[str] | None, typer.Option("--model", help="Name, hub id or folder; repeat [auricle-tiny].")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of results, OUTPUT/MODEL/TASK.")]


class _Settings(NamedTuple):
    """The models, and how answers are generated, kept and scored."""

    models: Sequence[str]
    opened: Mapping[str, Any]  # of `auricle.load`
    scoring_rules: Sequence[Any]
    scoring: ScoringConfig
    cache: Path
    batch_size: int
    max_new_tokens: int | None


def robustness(
    task: Tasks,
    output: Output,
    model: Models = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--condition", "-c", metavar="NAME[=LEVEL,…]", help="Corruption of the audio; repeat; all by default."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None, typer.Option("--beside", metavar="CARD", help="Earlier card for the same page; repeat.")
    ] = None,
    limit: Limit = None,
    scoring_rule: ScoringRules = "strict",
    missing: MissingAnswers = "error",
    cache: Cache = None,
    encoder: SentenceModel = "minilm",
    error_detector: Detector = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    max_new_tokens: TaskMaxNewTokens = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much of a score is left on corrupted audio; writes cards, a page and figures.

    Corruptions: white-noise, pink-noise, opus, mp3, telephone, reverb, gain, overdrive, speed, clipping, dropouts,
    padding. A stopped run continues.

    Example: auricle evaluate robustness -t events=shards -c white-noise=20,10,0 -c reverb -o robust
    """
    check_scoring(scoring_rule, missing)
    from auricle.evaluate.corruptions import CORRUPTIONS, find_corruption
    from auricle.evaluate.robustness import read_card, robustness_card

    corruptions = [find_corruption(text) for text in condition or CORRUPTIONS]
    earlier = [read_card(path) for path in beside or ()]
    settings = _Settings(
        models=model or ["auricle-tiny"],
        opened={"device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter},
        scoring_rules=SCORING_RULES[scoring_rule],
        scoring=scoring_config(encoder, error_detector, device, missing=missing, seed=seed),
        cache=cache or output / "cache",
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )

    def measure(evaluator: Evaluator, questions: Sequence[Question]) -> Card:
        def announce(name: str, level: float) -> None:
            print_line(f"{evaluator.task.name}: {name}, {level:g} {CORRUPTIONS[name].unit}", err=True)

        return robustness_card(evaluator, questions, corruptions, on_level=announce)

    tally, cards = Tally(), []
    for card in _measured(settings, _questions(task, limit), measure, tally, quiet=as_json):
        cards.append(card)
        path = _write(output, card.identity, "robustness", card.to_json())
        _show_card(card, path, as_json=as_json)
        levels = [level for curve in card.curves for level in curve.levels]
        tally.failed += card.clean_failed + sum(level.failed for level in levels)
        tally.partial += card.clean_partial + sum(level.partial for level in levels)
    if cards or earlier:
        _draw([*cards, *earlier], output)
    tally.leave()


def prompts(
    task: Tasks,
    output: Output,
    model: Models = None,
    file: Annotated[
        Path | None,
        typer.Option("--prompts", help=r"File of prompts, one a line, \n for a break; else known ones."),
    ] = None,
    choices: Annotated[
        bool, typer.Option("--choices", help="Move the choices of closed questions instead of the words.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", "-k", min=2, help="At most so many variants.")] = None,
    field: Annotated[
        str | None, typer.Option("--field", help="Of MECAT's captions the one whose prompt is changed.")
    ] = None,
    limit: Limit = None,
    scoring_rule: ScoringRules = "strict",
    missing: MissingAnswers = "error",
    cache: Cache = None,
    encoder: SentenceModel = "minilm",
    error_detector: Detector = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    max_new_tokens: TaskMaxNewTokens = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much a score depends on the words of the prompt, or on the order of the choices.

    Example: auricle evaluate prompts -t events=shards -k 5 -o prompts

    Example: auricle evaluate prompts -t facts_letters=shards --choices -o prompts
    """
    check_scoring(scoring_rule, missing)
    from auricle.evaluate.prompt_sensitivity import prompt_sensitivity

    if choices and (file or field):
        raise ConfigError("--choices keeps the prompts; leave out --prompts and --field")
    settings = _Settings(
        models=model or ["auricle-tiny"],
        opened={"device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter},
        scoring_rules=SCORING_RULES[scoring_rule],
        scoring=scoring_config(encoder, error_detector, device, missing=missing, seed=seed),
        cache=cache or output / "cache",
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    variants = [
        (declared, _variants(declared, questions, file, field, choices=choices, count=count))
        for declared, questions in _questions(task, limit)
    ]

    def measure(evaluator: Evaluator, own: Sequence[Variant]) -> PromptSensitivity:
        def announce(name: str) -> None:
            print_line(f"{evaluator.task.name}: {name}", err=True)

        return prompt_sensitivity(evaluator, own, "choices" if choices else "prompts", on_variant=announce)

    tally = Tally()
    for found in _measured(settings, variants, measure, tally, quiet=as_json):
        path = _write(output, found.identity, found.kind, found.to_json())
        _show_sensitivity(found, path, as_json=as_json)
        tally.failed += sum(each.failed for each in found.variants)
        tally.partial += sum(each.partial for each in found.variants)
    tally.leave()


def _questions(named: Sequence[str], limit: int | None) -> list[tuple[LanguageTask, list[Question]]]:
    return [(declared, read_task(declared, source, limit)) for declared, source in map(split_task, named)]


def _variants(
    task: LanguageTask,
    questions: Sequence[Question],
    file: Path | None,
    field: str | None,
    *,
    choices: bool,
    count: int | None,
) -> list[Variant]:
    from auricle.evaluate.prompt_variants import known_prompts, moved_choices, read_prompts, reworded

    if choices:
        return moved_choices(questions, count)
    if file is None:
        return reworded(questions, known_prompts(task)[:count], field=field)
    # The declared prompt is the one the others are paraphrases of.
    own = [task.prompts[field]] if field is not None and field in task.prompts else list(task.prompts.values())[:1]
    return reworded(questions, list(dict.fromkeys([*own, *read_prompts(file)]))[:count], field=field)


def _measured(
    settings: _Settings,
    tasks: Sequence[tuple[LanguageTask, Any]],
    measure: Callable[[Evaluator, Any], Any],
    tally: Tally,
    *,
    quiet: bool,
) -> Iterator[Any]:
    """Results of each model, task and scoring rule; errors are reported, and the others continue."""
    import auricle
    from auricle.engine.request import SamplingParams
    from auricle.evaluate.run import Evaluator

    load_detector(settings.scoring, [task for task, _ in tasks])
    with open_cache(settings.cache) as cache:
        for name in settings.models:
            model = auricle.load(name, **settings.opened)
            for task, subject in tasks:
                evaluator = Evaluator(
                    model=model,
                    task=task,
                    cache=cache,
                    sampling=SamplingParams(max_new_tokens=settings.max_new_tokens or task.max_new_tokens),
                    batch_size=settings.batch_size,
                )
                for scoring_rule in settings.scoring_rules:
                    scoring = replace(settings.scoring, scoring_rule=scoring_rule)
                    try:
                        with progress(f"{name} on {task.name}, answers", quiet=quiet) as advance:
                            found = measure(replace(evaluator, scoring=scoring, on_reply=lambda *_: advance()), subject)
                    except ConfigError:
                        raise
                    except AuricleError as error:
                        tally.note_error(task.name, str(error), quiet=False)
                    else:
                        yield found


def _draw(cards: Sequence[Card], folder: Path) -> None:
    from auricle.evaluate.robustness_page import write_cards

    try:
        paths = write_cards(cards, folder)
    except MissingExtra as error:
        print_line(f"auricle: no figures: {error}", err=True)
        paths = write_cards(cards, folder, figures=False)
    for path in paths:
        print_line(str(path), err=True)


def _show_card(card: Card, path: Path, *, as_json: bool) -> None:
    from auricle.evaluate.corruptions import CORRUPTIONS
    from auricle.evaluate.robustness import FALLS
    from auricle.evaluate.robustness_page import fall_words, interval, number

    if as_json:
        print_json({"file": str(path), **json.loads(card.to_json())})
        return
    print_line(
        f"{card.name} on {card.task}, {card.scoring_rule}: {card.questions} questions, clean {card.metric} "
        f"{interval(card.clean)}"
    )
    for curve in card.curves:
        corruption = CORRUPTIONS[curve.corruption]
        falls = ", ".join(f"below {share:g}: {fall_words(curve, corruption, share)}" for share in FALLS)
        print_line(f"{corruption.title}: area {number(curve.area)}, {falls}")
        for each in curve.levels:
            print_line(
                f"  {f'{each.level:g} {corruption.unit}':20} {interval(each.score):24} retention "
                f"{interval(each.retention):24} difference {interval(each.difference)}"
            )
    print_line(str(path), err=True)


def _show_sensitivity(found: PromptSensitivity, path: Path, *, as_json: bool) -> None:
    from auricle.evaluate.robustness_page import interval

    if as_json:
        print_json({"file": str(path), **json.loads(found.to_json())})
        return
    identity = found.identity
    what = "orders of the choices" if found.kind == "choices" else "prompts"
    print_line(
        f"{identity['model']} on {identity['task']}, {identity['protocol']}: {found.metric} under "
        f"{len(found.variants)} {what}, {found.questions} questions"
    )
    for at, each in enumerate(found.variants):
        mark = {found.worst: "worst", found.best: "best"}.get(at, "") if found.high > found.low else ""
        print_line(f"  {interval(each.score):24} {mark:6} {each.name}")
    print_line(
        f"mean {found.mean:.3f}, standard deviation {found.deviation:.3f}, from {found.low:.3f} to {found.high:.3f}"
    )
    same = "" if found.same_verdict is None else f"same verdict under all: {found.same_verdict:.3f} of the items; "
    print_line(f"{same}same answer: {found.same_answer:.3f} of the questions")
    if found.unread:
        print_line(f"answers that name no choice, or several: {found.unread:.3f}")
    for place in found.places:
        print_line(
            f"  ({place.letter}) chosen {place.chosen:.3f}, at random {place.offered:.3f}; right there "
            f"{interval(place.accuracy)}"
        )
    print_line(str(path), err=True)


def _write(output: Path, identity: Mapping[str, Any], kind: str, text: str) -> Path:
    """Write ``OUTPUT/MODEL/TASK/KIND.RULE.json``."""
    from auricle.evaluate.predictions import utf8
    from auricle.evaluate.run import run_folder
    from auricle.evaluate.task import load_language_task
    from auricle.files import make_folder, write_bytes

    folder = run_folder(output, str(identity["model"]), load_language_task(str(identity["task"])))
    path = make_folder(folder) / f"{kind}.{identity['protocol']}.json"
    write_bytes(path, utf8(text))
    return path
