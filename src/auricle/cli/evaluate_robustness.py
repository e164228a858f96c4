"""The verb that measures how scores fall on corrupted audio: evaluate robustness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auricle.cli.evaluate import Models, RunOptions, measure_tasks, read_tasks
from auricle.cli.options import with_groups
from auricle.cli.output import print_line, warn
from auricle.cli.printing import Tally
from auricle.errors import MissingExtra

if TYPE_CHECKING:
    from auricle.evaluate.questions import Question
    from auricle.evaluate.robustness import Card
    from auricle.evaluate.run import Evaluator


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
    for card in measure_tasks("robustness", model, tasks, measure, _lines, options=options, tally=tally):
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


def _lines(card: Card) -> Iterator[str]:
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
