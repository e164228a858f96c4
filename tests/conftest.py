"""Settings of the whole suite, and an interpreter that starts at once."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from .warm_python import serving

# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("auricle", deadline=None)
settings.load_profile("auricle")


@pytest.fixture(scope="session")
def warm_python() -> Iterator[str]:
    """A stand-in for ``sys.executable`` that has torch and the package loaded."""
    with serving() as program:
        yield program
