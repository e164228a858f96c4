"""Whatever the container, the codec, the tags around it and what was joined to it: all of the audio, at its time."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("av", reason="PyAV (extra media) is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.decode import decode

from .formats import BETWEEN, FAMILIES, ID3V1, Case, Sound, cases, check

# All of them take half a minute: AURICLE_ALL_FORMATS=1 pytest tests/audio/test_formats.py
EVERY = 1 if os.environ.get("AURICLE_ALL_FORMATS") else 13
CASES = list(cases())


@pytest.mark.parametrize("case", CASES[::EVERY], ids=lambda case: case.name)
def test_nothing_is_lost(case: Case) -> None:
    assert check(case, decode) == ""


def _sound(codec: str) -> st.SearchStrategy[Sound]:
    rates = [48_000] if codec == "opus" else [44_100, 48_000, 16_000]
    seconds = st.sampled_from([1.0, 1.25, 1.5])
    return st.builds(Sound, st.just(codec), st.sampled_from(rates), st.integers(1, 2), seconds)


chains = st.sampled_from(FAMILIES).flatmap(
    lambda family: st.tuples(
        st.lists(st.sampled_from(family).flatmap(_sound), min_size=1, max_size=4),
        st.sampled_from([*BETWEEN.values()] if family is FAMILIES[0] else [b""]),
        st.sampled_from([b"", ID3V1] if family is FAMILIES[0] else [b""]),
    )
)


@settings(max_examples=15 * (20 if EVERY == 1 else 1), deadline=None)
@given(chain=chains)
def test_any_chain_is_read_to_its_end(chain: tuple[list[Sound], bytes, bytes]) -> None:
    sounds, between, after = chain
    assert check(Case("", tuple(sounds), between=between, after=after), decode) == ""
