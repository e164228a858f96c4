"""One tester for all metrics: every one runs against an independent reference, in the manner of torchmetrics."""

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from auricle.errors import AuricleError, MissingExtra

Arguments = tuple[Any, ...]
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class MetricCase:
    """A metric, what it must equal, and on which inputs."""

    metric: Callable[..., Any]
    reference: Callable[..., Any]  # of the same arguments, all by position
    inputs: st.SearchStrategy[Arguments]
    keywords: tuple[str, ...] = ()  # names of the last arguments, where the metric takes them by name
    options: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the metric, always the same
    select: Callable[[Any], Any] = lambda result: result  # the numbers of a result that the reference gives too
    tolerance: float = 1e-12
    bounds: tuple[float, float] = (-math.inf, math.inf)
    items: tuple[int, ...] = ()  # numbers of the arguments whose order does not matter, when permuted together
    per_item: bool = False  # the result has vectors of one value an item, which are permuted as the items are
    dtypes: Sequence[torch.dtype] = ()  # of floating-point tensors; exact on multiples of 1/4 below 8
    degenerate: Mapping[str, tuple[Arguments, Any]] = field(default_factory=dict)  # arguments -> value or error
    needs: tuple[str, str] | None = None  # module it imports when called, and the extra that brings it

    @property
    def name(self) -> str:
        """Module and function, as the completeness test counts them."""
        return f"{self.metric.__module__.rpartition('.')[2]}.{self.metric.__name__}"

    def __call__(self, *arguments: Any) -> Any:
        """The metric of arguments that are all given by position."""
        count = len(arguments) - len(self.keywords)
        return self.metric(
            *arguments[:count], **dict(zip(self.keywords, arguments[count:], strict=True)), **self.options
        )


class MetricTester:
    """Checks of one case; each generates its inputs."""

    def __init__(self, case: MetricCase, *, examples: int = 30) -> None:
        self.case = case
        self.settings = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))

    def agrees_with_reference(self) -> None:
        """The metric equals its reference, and stays within its bounds."""
        case = self.case

        def check(arguments: Arguments) -> None:
            found, expected = self.values(arguments), list(numbers(case.reference(*arguments)))
            assert found == pytest.approx(expected, abs=case.tolerance, rel=case.tolerance, nan_ok=True)
            low, high = case.bounds
            slack = max(case.tolerance, 1e-9)
            assert all(low - slack <= value <= high + slack for value in found if not math.isnan(value))

        self.settings(given(case.inputs)(check))()

    def ignores_the_order_of_items(self) -> None:
        """Items in another order give the same numbers."""
        case = self.case

        def check(arguments: Arguments, source: random.Random) -> None:
            order = list(range(len(arguments[case.items[0]])))
            source.shuffle(order)
            shuffled = [permuted(each, order) if at in case.items else each for at, each in enumerate(arguments)]
            expected = self.values(arguments)
            if case.per_item:
                rows = [expected[start : start + len(order)] for start in range(0, len(expected), len(order))]
                expected = [row[at] for row in rows for at in order]
            assert self.values(tuple(shuffled)) == pytest.approx(expected, abs=1e-9, nan_ok=True)

        self.settings(given(case.inputs, st.randoms(use_true_random=False))(check))()

    def ignores_the_data_type(self) -> None:
        """Values that a smaller type holds exactly give the same numbers in it."""

        def check(arguments: Arguments) -> None:
            expected = pytest.approx(self.values(arguments), abs=1e-9, nan_ok=True)
            for dtype in self.case.dtypes:
                assert self.values(tuple(cast(each, dtype) for each in arguments)) == expected, dtype

        self.settings(given(self.case.inputs)(check))()

    def handles(self, kind: str) -> None:
        """A degenerate input gives the documented value or error."""
        arguments, expected = self.case.degenerate[kind]
        if isinstance(expected, type) and issubclass(expected, Exception):
            with pytest.raises(expected):
                self.case(*arguments)
            return
        assert self.values(arguments) == pytest.approx(list(numbers(expected)), nan_ok=True)

    def names_the_missing_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without its library the error says what to install."""
        assert self.case.needs is not None
        module, extra = self.case.needs
        for name in [name for name in sys.modules if name.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)

        @settings(max_examples=1, deadline=None, database=None)
        @given(self.case.inputs)
        def check(arguments: Arguments) -> None:
            try:
                self.case(*arguments)
            except MissingExtra as error:
                assert f"auricle[{extra}]" in str(error)
            else:
                raise AuricleError(f"{self.case.name} did not need {module}")

        check()

    def values(self, arguments: Arguments) -> list[float]:
        """The selected numbers of a result."""
        return list(numbers(self.case.select(self.case(*arguments))))


def numbers(result: Any) -> Iterator[float]:
    """All numbers of a result, in order; of a mapping by sorted keys."""
    if isinstance(result, Mapping):
        for key in sorted(result):
            yield from numbers(result[key])
    elif isinstance(result, Tensor | np.ndarray):
        yield from (float(value) for value in np.asarray(result, np.float64).ravel())
    elif isinstance(result, list | tuple):
        for each in result:
            yield from numbers(each)
    else:
        yield float(result)


def permuted(items: Any, order: Sequence[int]) -> Any:
    """A list, tensor or array in another order."""
    return items[list(order)] if isinstance(items, Tensor | np.ndarray) else [items[at] for at in order]


def cast(value: Any, dtype: torch.dtype) -> Any:
    """A floating-point tensor, or a list of them, in another type; anything else as it is."""
    if isinstance(value, list):
        return [cast(each, dtype) for each in value]
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def seeded(
    make: Callable[[np.random.Generator, int], Arguments], *, least: int = 1, most: int = 12, large: int = 60
) -> st.SearchStrategy[Arguments]:
    """Arguments made from a random generator and a number of items: mostly few, at times many."""
    sizes = st.one_of(st.integers(least, most), st.just(large))
    return st.builds(lambda seed, size: make(np.random.default_rng(seed), size), st.integers(0, 2**32 - 1), sizes)


def quarters(rng: np.random.Generator, *shape: int) -> Tensor:
    """Multiples of 1/4 in [-2, 2], which bfloat16 holds exactly, with many ties."""
    return torch.from_numpy(rng.integers(-8, 9, shape) / 4)


def embeddings(rng: np.random.Generator, rows: int, width: int = 6) -> Tensor:
    """Rows without near ties, or, now and then, unit vectors with exact ones."""
    if rng.random() < 0.3:
        return torch.eye(width, dtype=torch.float64)[torch.from_numpy(rng.integers(width, size=rows))]
    return torch.from_numpy(rng.integers(-127, 128, (rows, width)) / 64)
