import pickle
from collections.abc import Iterator

import pytest

import auricle.engine.request  # noqa: F401 - has an error of its own
from auricle.errors import AuricleError, MissingExtra


def kinds(of: type[AuricleError] = AuricleError) -> Iterator[type[AuricleError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize("kind", [*kinds()], ids=lambda kind: kind.__name__)
def test_errors_cross_processes(kind: type[AuricleError]) -> None:
    error = kind("m4a audio", "media") if issubclass(kind, MissingExtra) else kind("found, expected, how to fix it")
    error.add_note("in a.wav") if hasattr(error, "add_note") else None
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(copy) is kind and str(copy) == str(error) and str(error)
