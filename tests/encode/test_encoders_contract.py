"""Every family through the kit that outsiders get, and the kit against encoders that break each promise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from auricle import load_encoder
from auricle.encode import pytest_plugin
from auricle.encode.contract import CHECKS, Finding, check_encoder, run_check
from auricle.encode.encoder import Encoder
from auricle.models.encoders.baselines import LogMelFrames
from auricle.models.encoders.random_encoders import RANDOM_ENCODERS

NAMES = [
    "log-mel",
    "mfcc",
    "mfcc-40",
    *(f"random:{name}" for name in RANDOM_ENCODERS if name != "dasheng-base"),
    "random:dasheng-tiny@1,3+random:whisper-tiny",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_family_keeps_the_contract(name: str) -> None:
    encoder = load_encoder(name)
    assert encoder.name == name
    findings = check_encoder(encoder)
    assert [finding.check for finding in findings] == list(CHECKS)
    assert [finding for finding in findings if not finding.passed] == []


def test_the_plumbing_rows_of_the_benchmark() -> None:
    encoder = load_encoder("random:dasheng-base")
    assert (encoder.output_dim, encoder.hop_size_in_ms) == (768, 40)
    assert encoder(torch.zeros(16_000)).shape == (1, 25, 768)


class Broken(LogMelFrames):
    """Frames of a log-mel, spoilt by a function of all clips."""

    def __init__(self, spoil: Callable[[list[Tensor]], list[Tensor]]) -> None:
        super().__init__()
        self.spoil = spoil

    def frames(self, waveforms: Any) -> list[Tensor]:
        return self.spoil(super().frames(waveforms))


def over_the_batch(clips: list[Tensor]) -> list[Tensor]:
    mean = torch.cat(clips).mean()
    return [clip - mean for clip in clips]


def padded(clips: list[Tensor]) -> list[Tensor]:
    return list(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True))


CALLS = iter(range(10**9))
BROKEN: dict[str, tuple[Callable[[list[Tensor]], list[Tensor]], set[str]]] = {
    "batch statistics": (over_the_batch, {"batch_invariance", "position_in_batch"}),
    "padding kept": (padded, {"batch_invariance"}),
    "noise": (lambda clips: [clip + 0.1 * next(CALLS) for clip in clips], {"determinism", "batch_invariance"}),
    "NaN of silence": (lambda clips: [torch.where(c <= -100, torch.nan, c) for c in clips], {"finite"}),
    "half the frames": (lambda clips: [clip[::2] for clip in clips], {"frame_count"}),
    "double precision": (lambda clips: [clip.double() for clip in clips], {"dtype"}),
    "another width": (lambda clips: [clip[:, :60] for clip in clips], {"shape"}),
    "deaf": (lambda clips: [torch.ones_like(clip) for clip in clips], {"sensitivity"}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_encoder_is_caught(fault: str) -> None:
    spoil, expected = BROKEN[fault]
    failed = {finding.check for finding in check_encoder(Encoder(Broken(spoil))) if not finding.passed}
    assert expected <= failed


class Outsider:
    """The contract without our class around it."""

    sampling_rate, output_dim, hop_size_in_ms = 16_000, 64, 10

    def __init__(self, **spoilt: Any) -> None:
        self._inner = Encoder(LogMelFrames())
        vars(self).update(spoilt)

    def __call__(self, waveform: Any) -> Tensor:
        return self._inner(waveform)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def with_gradients(waveform: Any) -> Tensor:
    return Encoder(LogMelFrames())(waveform).clone().requires_grad_()


class Differentiable(Outsider):
    def __call__(self, waveform: Any) -> Tensor:
        return super().__call__(waveform).clone().requires_grad_()


class Flat(Outsider):
    def __call__(self, waveform: Any) -> Tensor:
        return super().__call__(waveform)[0] if torch.as_tensor(waveform).ndim == 1 else super().__call__(waveform)


class Impatient(Outsider):
    def encode(self, clips: Any) -> Any:
        if min(len(clip) for clip in clips) < 400:
            raise ValueError("too short for me")
        return self._inner.encode(clips)


@pytest.mark.parametrize(
    ("encoder", "check", "message"),
    [
        (Outsider(output_dim=None), "attributes", "output_dim=None"),
        (Outsider(hop_size_in_ms=-1), "attributes", "hop_size_in_ms=-1"),
        (Differentiable(), "gradients", "requires_grad is True"),
        (Flat(), "one_dimension", r"(101, 64)"),
        (Impatient(), "short_clip", "raised ValueError: too short for me"),
        (Outsider(embed=lambda clips: torch.zeros(len(clips), 64)), "pooling", "differ by"),
    ],
    ids=lambda value: value if isinstance(value, str) and value in CHECKS else "",
)
def test_faults_of_another_encoder_are_named(encoder: Outsider, check: str, message: str) -> None:
    assert run_check(check, Outsider()).passed
    finding = run_check(check, encoder)
    assert not finding.passed and message in finding.message


def test_the_invariance_error_is_measured() -> None:
    finding = run_check("batch_invariance", Encoder(Broken(over_the_batch)))
    assert isinstance(finding, Finding) and finding.measured is not None and finding.measured > 0.01


class Reports:
    """Collects what a run of pytest reported."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.outcomes[report.nodeid.rpartition("::")[2]] = report.outcome


def run_pytest(folder: Any, *arguments: str) -> tuple[int, dict[str, str]]:
    reports = Reports()
    # Installed, the plug-in has another name under which it must not be there twice.
    common = ["-p", "no:auricle", "-p", "no:cacheprovider", "-q", "--rootdir", str(folder), str(folder)]
    code = pytest.main([*common, *arguments], plugins=[pytest_plugin, reports])
    return int(code), reports.outcomes


def test_pytest_makes_a_test_of_each_check(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, outcomes = run_pytest(tmp_path, "--auricle-encoder", "log-mel")
    assert code == 0 and outcomes == dict.fromkeys(CHECKS, "passed")
    assert run_pytest(tmp_path)[0] == pytest.ExitCode.NO_TESTS_COLLECTED
    capsys.readouterr()


def test_pytest_fails_with_the_finding(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nclass MyEncoder:\n    sampling_rate, output_dim, hop_size_in_ms = 16_000, 1, 10\n"
        "    def __call__(self, audio):\n        return audio.unfold(1, 320, 320).std(-1)[..., None]\n"
    )
    code, outcomes = run_pytest(tmp_path, "--auricle-encoder", str(path))
    assert code == 1 and set(outcomes.values()) == {"failed"}
    assert "Nothing was run" in capsys.readouterr().out
    code, outcomes = run_pytest(tmp_path, "--auricle-encoder", str(path), "--auricle-trust-code")
    assert code == 1 and {check for check, outcome in outcomes.items() if outcome == "failed"} == {"frame_count"}
    assert "frames, hop_size_in_ms promises" in capsys.readouterr().out
