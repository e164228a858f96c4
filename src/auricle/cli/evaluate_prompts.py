"""The verb that measures how scores depend on the prompt: evaluate prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auricle.cli.evaluate import Models, RunOptions, measure_tasks, read_tasks
from auricle.cli.options import with_groups
from auricle.cli.output import print_line
from auricle.cli.printing import Tally
from auricle.errors import ConfigError

if TYPE_CHECKING:
    from auricle.evaluate.prompt_sensitivity import Kind, PromptSensitivity
    from auricle.evaluate.prompt_variants import Variant
    from auricle.evaluate.questions import Question
    from auricle.evaluate.run import Evaluator
    from auricle.evaluate.task import LanguageTask


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
    for found in measure_tasks(kind, model, variants, measure, _lines, options=options, tally=tally):
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


def _lines(found: PromptSensitivity) -> Iterator[str]:
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
