"""pytest plug-in: ``pytest --auricle-encoder NAME`` runs the encoder contract as tests, one for each check.

NAME is any name of `auricle.load_encoder`; the option may be given several times. Nothing heavy is imported without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("auricle", "contract of audio encoders")
    group.addoption(
        "--auricle-encoder",
        action="append",
        default=[],
        metavar="NAME",
        help="check this encoder against the contract of auricle.load_encoder; may be given several times",
    )
    group.addoption(
        "--auricle-trust-code",
        action="store_true",
        help="run the .py files named by --auricle-encoder",
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the checks after the collected tests."""
    for name in config.getoption("--auricle-encoder"):
        items.extend(EncoderChecks.from_parent(session, name=f"auricle-encoder[{name}]", encoder_name=name).collect())


class EncoderChecks(pytest.Collector):
    """The checks of one encoder, which is loaded by the first of them."""

    def __init__(self, *, encoder_name: str, **arguments: Any) -> None:
        """``encoder_name``: for `auricle.load_encoder`."""
        super().__init__(**arguments)
        self.encoder_name = encoder_name
        self._encoder: Any = None

    def collect(self) -> Iterator[pytest.Item]:
        """One item for each check."""
        from auricle.encode.contract import CHECKS

        for check in CHECKS:
            yield EncoderCheck.from_parent(self, name=check)

    def encoder(self) -> Any:
        """The encoder, loaded once."""
        if self._encoder is None:
            from auricle.encode.encoder import load_encoder

            trust = bool(self.config.getoption("--auricle-trust-code"))
            self._encoder = load_encoder(self.encoder_name, trust_code=trust)
        return self._encoder


class EncoderCheck(pytest.Item):
    """One check of one encoder."""

    def runtest(self) -> None:
        """Run it."""
        from auricle.encode.contract import run_check

        assert isinstance(self.parent, EncoderChecks)
        finding = run_check(self.name, self.parent.encoder())
        self.add_report_section("call", "finding", finding.message)
        if not finding.passed:
            pytest.fail(f"{self.parent.encoder_name}: {self.name}: {finding.message}", pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        """The check has no line in a file."""
        assert isinstance(self.parent, EncoderChecks)
        return "auricle.encode.contract", None, f"{self.parent.encoder_name}: {self.name}"
