"""Verbs that measure how scores depend on how a question is given: evaluate robustness, evaluate prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auricle.cli.evaluate import Models, RunOptions, measure_tasks, read_tasks
from auricle.cli.options import with_groups
from auricle.cli.output import print_line, warn
from auricle.cli.printing import Tally
from auricle.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from auricle.evaluate.prompt_sensitivity import Kind, PromptSensitivity
    from auricle.evaluate.prompt_variants import Variant
    from auricle.evaluate.questions import Question
    from auricle.evaluate.robustness import Card
    from auricle.evaluate.run import Evaluator
    from auricle.evaluate.task import LanguageTask


@with_groups
def robustness(
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
    *,
    options: RunOptions,
) -> None:
    """Measure how much of a score is left on corrupted audio; writes cards, a page and figures.

    Corruptions: white-noise, pink-noise, opus, mp3, telephone, reverb, gain, overdrive, speed, clipping, dropouts,
    padding. A stopped run continues. Older files of these names in OUTPUT are replaced.

    Example: auricle evaluate robustness -t events=shards -c white-noise=20,10,0 -c reverb -o robust
    """
    from auricle.evaluate.corruptions import CORRUPTIONS, find_corruption
    from auricle.evaluate.robustness import read_card, robustness_card

    corruptions = [find_corruption(text) for text in condition or CORRUPTIONS]
    earlier = [read_card(path) for path in beside or ()]

    def measure(evaluator: Evaluator, questions: Sequence[Question]) -> Card:
        def announce(name: str, level: float) -> None:
            print_line(f"{evaluator.task.name}: {name}, {level:g} {CORRUPTIONS[name].unit}", err=True)

        return robustness_card(evaluator, questions, corruptions, on_level=announce)

    tally, cards, tasks = Tally(), [], read_tasks(options)
    for card in measure_tasks("robustness", model, tasks, measure, _card_lines, options=options, tally=tally):
        cards.append(card)
        levels = [level for curve in card.curves for level in curve.levels]
        tally.failed += card.clean_failed + sum(level.failed for level in levels)
        tally.partial += card.clean_partial + sum(level.partial for level in levels)
    if cards or earlier:
        _draw([*cards, *earlier], options.output)
    tally.leave()


def _draw(cards: Sequence[Card], folder: Path) -> None:
    from auricle.evaluate.robustness_page import write_cards

    try:
        paths = write_cards(cards, folder)
    except MissingExtra as error:
        warn(f"no figures: {error}")
        paths = write_cards(cards, folder, figures=False)
    for path in paths:
        print_line(str(path), err=True)


def _card_lines(card: Card) -> Iterator[str]:
    from auricle.evaluate.corruptions import CORRUPTIONS
    from auricle.evaluate.robustness import FALLS
    from auricle.evaluate.robustness_page import fall_words, interval, number

    yield (
        f"{card.name} on {card.task}, {card.scoring_rule}: {card.questions} questions, clean {card.metric} "
        f"{interval(card.clean)}"
    )
    for curve in card.curves:
        corruption = CORRUPTIONS[curve.corruption]
        falls = ", ".join(f"below {share:g}: {fall_words(curve, corruption, share)}" for share in FALLS)
        yield f"{corruption.title}: area {number(curve.area)}, {falls}"
        for each in curve.levels:
            yield (
                f"  {f'{each.level:g} {corruption.unit}':20} {interval(each.score):24} retention "
                f"{interval(each.retention):24} difference {interval(each.difference)}"
            )


@with_groups
def prompts(
    model: Models = None,
    file: Annotated[
        Path | None, typer.Option("--prompts", help=r"File of prompts, one a line, \n for a break; else known ones.")
    ] = None,
    choices: Annotated[
        bool, typer.Option("--choices", help="Move the choices of closed questions instead of the words.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", "-k", min=2, help="At most so many variants.")] = None,
    field: Annotated[
        str | None, typer.Option("--field", help="The one of MECAT's captions whose prompt is changed.")
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Measure how much a score depends on the words of the prompt, or on the order of the choices.

    Example: auricle evaluate prompts -t events=shards -k 5 -o prompts

    Example: auricle evaluate prompts -t facts_letters=shards --choices -o prompts
    """
    from auricle.evaluate.prompt_sensitivity import prompt_sensitivity

    if choices and (file or field):
        raise ConfigError("--choices keeps the prompts; leave out --prompts and --field")
    kind: Kind = "choices" if choices else "prompts"
    variants = [
        (declared, _variants(declared, questions, file, field, choices=choices, count=count))
        for declared, questions in read_tasks(options)
    ]

    def measure(evaluator: Evaluator, own: Sequence[Variant]) -> PromptSensitivity:
        def announce(name: str) -> None:
            print_line(f"{evaluator.task.name}: {name}", err=True)

        return prompt_sensitivity(evaluator, own, kind, on_variant=announce)

    tally = Tally()
    for found in measure_tasks(kind, model, variants, measure, _prompt_lines, options=options, tally=tally):
        tally.failed += sum(each.failed for each in found.variants)
        tally.partial += sum(each.partial for each in found.variants)
    tally.leave()


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


def _prompt_lines(found: PromptSensitivity) -> Iterator[str]:
    from auricle.evaluate.robustness_page import interval

    identity = found.identity
    what = "orders of the choices" if found.kind == "choices" else "prompts"
    yield (
        f"{identity['model']} on {identity['task']}, {identity['protocol']}: {found.metric} under "
        f"{len(found.variants)} {what}, {found.questions} questions"
    )
    for at, each in enumerate(found.variants):
        mark = {found.worst: "worst", found.best: "best"}.get(at, "") if found.high > found.low else ""
        yield f"  {interval(each.score):24} {mark:6} {each.name}"
    yield f"mean {found.mean:.3f}, standard deviation {found.deviation:.3f}, from {found.low:.3f} to {found.high:.3f}"
    same = "" if found.same_verdict is None else f"same verdict under all: {found.same_verdict:.3f} of the items; "
    yield f"{same}same answer: {found.same_answer:.3f} of the questions"
    if found.unread:
        yield f"answers that name no choice, or several: {found.unread:.3f}"
    for place in found.places:
        yield (
            f"  ({place.letter}) chosen {place.chosen:.3f}, at random {place.offered:.3f}; right there "
            f"{interval(place.accuracy)}"
        )
