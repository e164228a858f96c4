"""The verbs that change what a model is given, sounds or words: evaluate robustness and evaluate prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from auricle.cli.evaluate import (
    PROTOCOLS,
    Cache,
    Detector,
    Encoder,
    Limit,
    MaxNewTokens,
    MissingAnswers,
    Protocol,
    Seed,
    Tasks,
    Tools,
    check_choice,
    split_task,
)
from auricle.cli.listen import Adapter, AsJson, BatchSize, Device, Dtype, Quantize
from auricle.cli.output import print_json, print_line
from auricle.cli.printing import Tally
from auricle.errors import AuricleError, ConfigError, MissingExtra

if TYPE_CHECKING:
    from auricle.evaluate.examiner import Examiner
    from auricle.evaluate.prompt_sensitivity import Spread
    from auricle.evaluate.prompt_variants import Variant
    from auricle.evaluate.questions import Question
    from auricle.evaluate.robustness import Card
    from auricle.evaluate.task import LanguageTask

Models = Annotated[list[str] | None, typer.Option("--model", help="Name, hub id or folder; repeat [auricle-tiny].")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of what is found, OUTPUT/MODEL/TASK.")]


class _Order(NamedTuple):
    """Who is asked, and how answers are kept and judged."""

    models: Sequence[str]
    opened: Mapping[str, Any]  # of `auricle.load`
    protocol: str
    cache: Path
    judging: Mapping[str, Any]  # further fields of `Examiner`
    max_new_tokens: int | None
    tools: Tools


def robustness(
    task: Tasks,
    output: Output,
    model: Models = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--condition", "-c", metavar="NAME[=LEVEL,…]", help="What happens to the sounds; repeat; all by default."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None, typer.Option("--beside", metavar="CARD", help="Earlier card to show beside; repeat.")
    ] = None,
    limit: Limit = None,
    protocol: Protocol = "strict",
    missing: MissingAnswers = "error",
    cache: Cache = None,
    encoder: Encoder = "minilm",
    error_detector: Detector = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much of a score is left on degraded sounds; writes cards, a page and figures.

    Conditions: white-noise, pink-noise, opus, mp3, telephone, reverb, gain, overdrive, speed, clipping, dropouts,
    padding. A run that was stopped goes on.

    Example: auricle evaluate robustness -t events=shards -c white-noise=20,10,0 -c reverb -o robust
    """
    from auricle.evaluate.corruptions import CONDITIONS, find_condition
    from auricle.evaluate.robustness import read_card, robustness_card

    conditions = [find_condition(text) for text in condition or CONDITIONS]
    earlier = [read_card(path) for path in beside or ()]
    order = _Order(
        models=model or ["auricle-tiny"],
        opened={"device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter},
        protocol=protocol,
        cache=cache or output / "cache",
        judging={"missing": missing, "seed": seed, "batch_size": batch_size},
        max_new_tokens=max_new_tokens,
        tools=Tools(encoder, error_detector, device),
    )

    def measure(examiner: Examiner, questions: Sequence[Question]) -> Card:
        def tell(name: str, level: float) -> None:
            print_line(f"{examiner.task.name}: {name}, {level:g} {CONDITIONS[name].unit}", err=True)

        return robustness_card(examiner, questions, conditions, on_level=tell)

    tally, cards = Tally(), []
    for card in _measured(order, _questions(task, limit), measure, tally):
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
        typer.Option("--prompts", help=r"File of prompts, one a line, \n for a break; else how users phrase it."),
    ] = None,
    choices: Annotated[
        bool, typer.Option("--choices", help="Move the choices of closed questions instead of the words.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", "-k", min=2, help="At most so many ways of asking.")] = None,
    field: Annotated[
        str | None, typer.Option("--field", help="Of MECAT's captions the one whose prompt is changed.")
    ] = None,
    limit: Limit = None,
    protocol: Protocol = "strict",
    missing: MissingAnswers = "error",
    cache: Cache = None,
    encoder: Encoder = "minilm",
    error_detector: Detector = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much a score depends on the words of the question, or on the order of its choices.

    Example: auricle evaluate prompts -t events=shards -k 5 -o prompts

    Example: auricle evaluate prompts -t facts_letters=shards --choices -o prompts
    """
    from auricle.evaluate.prompt_sensitivity import prompt_spread

    if choices and (file or field):
        raise ConfigError("--choices keeps the words as they are; leave out --prompts and --field")
    order = _Order(
        models=model or ["auricle-tiny"],
        opened={"device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter},
        protocol=protocol,
        cache=cache or output / "cache",
        judging={"missing": missing, "seed": seed, "batch_size": batch_size},
        max_new_tokens=max_new_tokens,
        tools=Tools(encoder, error_detector, device),
    )
    variants = [
        (declared, _variants(declared, questions, file, field, choices=choices, count=count))
        for declared, questions in _questions(task, limit)
    ]

    def measure(examiner: Examiner, own: Sequence[Variant]) -> Spread:
        def tell(name: str) -> None:
            print_line(f"{examiner.task.name}: {name}", err=True)

        return prompt_spread(examiner, own, "choices" if choices else "prompts", on_variant=tell)

    tally = Tally()
    for found in _measured(order, variants, measure, tally):
        path = _write(output, found.identity, found.kind, found.to_json())
        _show_spread(found, path, as_json=as_json)
        tally.failed += sum(each.failed for each in found.asked)
        tally.partial += sum(each.partial for each in found.asked)
    tally.leave()


def _questions(named: Sequence[str], limit: int | None) -> list[tuple[LanguageTask, list[Question]]]:
    from auricle.evaluate.questions import read_questions

    found = []
    for declared, source in map(split_task, named):
        questions = read_questions(
            declared, source, limit=limit, on_note=lambda note: print_line(f"auricle: {note}", err=True)
        )
        found.append((declared, questions))
    return found


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
    order: _Order,
    tasks: Sequence[tuple[LanguageTask, Any]],
    measure: Callable[[Examiner, Any], Any],
    tally: Tally,
) -> Iterator[Any]:
    """What is measured of each model, task and protocol; what cannot be leaves its error, and the others go on."""
    check_choice("--protocol", order.protocol, tuple(PROTOCOLS))
    check_choice("--missing", order.judging["missing"], ("error", "worst"))
    import auricle
    from auricle.engine.request import SamplingParams
    from auricle.evaluate.answer_cache import AnswerCache
    from auricle.evaluate.examiner import Examiner

    with AnswerCache(order.cache) as cache:
        for fault in cache.damaged:
            print_line(f"auricle: {fault}; passed over", err=True)
        for name in order.models:
            listener = auricle.load(name, **order.opened)
            for task, what in tasks:
                has_captions = task.judge in ("caption", "mecat")
                examiner = Examiner(
                    model=listener,
                    task=task,
                    cache=cache,
                    sampling=SamplingParams(max_new_tokens=order.max_new_tokens or task.max_new_tokens),
                    encoder=order.tools.encoder if has_captions else None,
                    detector=order.tools.detector() if has_captions else None,
                    **order.judging,
                )
                for protocol in PROTOCOLS[order.protocol]:
                    try:
                        yield measure(replace(examiner, protocol=protocol), what)
                    except ConfigError:
                        raise
                    except AuricleError as error:
                        tally.note_error(task.name, str(error), quiet=False)


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
    from auricle.evaluate.corruptions import CONDITIONS
    from auricle.evaluate.robustness import FALLS
    from auricle.evaluate.robustness_page import fall_words, interval, number

    if as_json:
        print_json({"file": str(path), **json.loads(card.to_json())})
        return
    print_line(
        f"{card.name} on {card.task}, {card.identity['protocol']}: {card.questions} questions, clean {card.metric} "
        f"{interval(card.clean)}"
    )
    for curve in card.curves:
        condition = CONDITIONS[curve.condition]
        falls = ", ".join(f"below {share:g}: {fall_words(curve, condition, share)}" for share in FALLS)
        print_line(f"{condition.title}: area {number(curve.area)}, {falls}")
        for each in curve.levels:
            print_line(
                f"  {f'{each.level:g} {condition.unit}':20} {interval(each.score):24} retention "
                f"{interval(each.retention):24} difference {interval(each.difference)}"
            )
    print_line(str(path), err=True)


def _show_spread(found: Spread, path: Path, *, as_json: bool) -> None:
    from auricle.evaluate.robustness_page import interval

    if as_json:
        print_json({"file": str(path), **json.loads(found.to_json())})
        return
    identity = found.identity
    what = "orders of the choices" if found.kind == "choices" else "prompts"
    print_line(
        f"{identity['model']} on {identity['task']}, {identity['protocol']}: {found.metric} under {len(found.asked)} "
        f"{what}, {found.questions} questions"
    )
    for at, each in enumerate(found.asked):
        mark = {found.worst: "worst", found.best: "best"}.get(at, "") if found.high > found.low else ""
        print_line(f"  {interval(each.score):24} {mark:6} {each.name}")
    print_line(
        f"mean {found.mean:.3f}, standard deviation {found.deviation:.3f}, from {found.low:.3f} to {found.high:.3f}"
    )
    same = "" if found.same_verdict is None else f"judged alike under all: {found.same_verdict:.3f} of the items; "
    print_line(f"{same}answered alike: {found.same_answer:.3f} of the questions")
    if found.unread:
        print_line(f"answers that name no choice, or several: {found.unread:.3f}")
    for place in found.places:
        print_line(
            f"  ({place.letter}) chosen {place.chosen:.3f}, by lot {place.offered:.3f}; right there "
            f"{interval(place.accuracy)}"
        )
    print_line(str(path), err=True)


def _write(output: Path, identity: Mapping[str, Any], kind: str, text: str) -> Path:
    """Write ``OUTPUT/MODEL/TASK/KIND.PROTOCOL.json``."""
    from auricle.evaluate.answer_files import utf8
    from auricle.evaluate.run import run_folder
    from auricle.evaluate.task import load_language_task
    from auricle.files import make_folder, write_bytes

    folder = run_folder(output, str(identity["model"]), load_language_task(str(identity["task"])))
    path = make_folder(folder) / f"{kind}.{identity['protocol']}.json"
    write_bytes(path, utf8(text))
    return path
