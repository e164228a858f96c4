import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from auricle.errors import TrainingError
from auricle.files import writing
from auricle.train import checkpoint
from auricle.train.checkpoint import State


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def trained(steps: int, width: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, 4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.ones(2, width)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def found(folder: Path) -> tuple[Path, int] | None:
    """The newest whole checkpoint and its step, where nothing is to be said about it."""
    newest = checkpoint.latest(folder, pytest.fail)
    return newest and (newest[0], newest[1].step)


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_a_checkpoint_holds_weights_and_moments(tmp_path: Path) -> None:
    model, optimizer = trained(3)
    path = checkpoint.save(tmp_path, State(step=3), model, optimizer, keep=1)
    other, fresh = trained(0)
    assert found(tmp_path) == (path, 3)
    checkpoint.restore(path, other, fresh)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert all(torch.equal(optimizer.state[one][key], fresh.state[two][key]) for key in optimizer.state[one])


def dying(patch: pytest.MonkeyPatch, moment: int) -> None:
    """The process dies just before its `moment`-th act on the disk."""
    acts = 0

    def before(act: Callable[..., Any]) -> Callable[..., Any]:
        def perform(*arguments: Any, **named: Any) -> Any:
            nonlocal acts
            acts += 1
            if acts == moment:
                raise Killed
            return act(*arguments, **named)

        return perform

    patch.setattr(checkpoint, "write_text", before(checkpoint.write_text))
    patch.setattr(checkpoint, "save_file", before(checkpoint.save_file))
    patch.setattr(writing, "_to_disk", before(writing._to_disk))
    patch.setattr(writing.os, "replace", before(writing.os.replace))
    patch.setattr(checkpoint.shutil, "rmtree", before(checkpoint.shutil.rmtree))
    for name in ("mkdir", "rename"):
        patch.setattr(Path, name, before(getattr(Path, name)))


@pytest.mark.parametrize("keep", [1, 2])
def test_a_kill_at_any_moment_of_writing_leaves_a_usable_checkpoint(tmp_path: Path, keep: int) -> None:
    early, late = trained(1), trained(2)
    known = {1: weights(early[0]), 2: weights(late[0])}
    steps = []
    for moment in range(1, 40):
        folder = tmp_path / str(moment)
        checkpoint.save(folder, State(step=1), *early, keep=keep)
        killed = True
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, moment)
            try:
                checkpoint.save(folder, State(step=2), *late, keep=keep)
                killed = False
            except Killed:
                pass
        newest = found(folder)
        assert newest is not None
        path, step = newest
        model, optimizer = trained(0)
        checkpoint.restore(path, model, optimizer)
        assert all(map(torch.equal, weights(model), known[step]))
        # The run goes on from there and writes the later one again, unless it has that one.
        if step == 1:
            checkpoint.save(folder, State(step=2), *late, keep=keep)
        else:
            checkpoint.tidy(path, keep=keep)
        assert found(folder) == (folder / "step-00000002", 2) and not list(folder.glob(".*"))
        assert len(list(folder.iterdir())) == keep + 1
        steps.append(step)
        if not killed:
            break
    assert not killed and steps[0] == 1 and steps[-1] == 2 and steps == sorted(steps) and len(steps) > 8


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 12):
        checkpoint.save(tmp_path, State(step=step), *trained(1), keep=2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000003", "step-00000012"]


def test_a_later_one_left_by_a_kill_does_not_cost_the_present_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, State(step=20), *trained(1), keep=1)
    path = checkpoint.save(tmp_path, State(step=15), *trained(1), keep=1)
    assert found(tmp_path) == (path, 15)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, State(step=1), *trained(1), keep=1)
    with pytest.raises(TrainingError, match=r"0.weight is \(4, 3\) there and \(4, 5\) here; .*out="):
        checkpoint.restore(path, *trained(0, width=5))
    model = nn.Linear(3, 4)
    with pytest.raises(TrainingError, match=r"in one of them only, such as 0\.bias"):
        checkpoint.restore(path, model, torch.optim.AdamW(model.parameters()))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut weights": lambda path: os.truncate(path / "model.safetensors", 100),
    "another bit": lambda path: flip(path / "model.safetensors"),
    "another bit of the moments": lambda path: flip(path / "optimizer.safetensors"),
    "no moments": lambda path: (path / "optimizer.safetensors").unlink(),
    "empty state": lambda path: (path / "state.json").write_text(""),
    "no state": lambda path: (path / "state.json").unlink(),
    "state is a list": lambda path: (path / "state.json").write_text("[]"),
    "no step": lambda path: (path / "state.json").write_text('{"step": "5"}'),
    "no text": lambda path: (path / "state.json").write_bytes(b"\xff"),
    "no folder": shutil.rmtree,
}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    whole, newest = (checkpoint.save(tmp_path, State(step=step), *trained(step), keep=2) for step in (4, 5))
    damage(newest)
    said: list[str] = []
    assert checkpoint.latest(tmp_path, said.append) == (whole, State(step=4))
    (line,) = said
    assert line.startswith(f"{newest} is damaged (") and line.endswith("going on from step-00000004")
    damage(whole)
    with pytest.raises(TrainingError, match=r"step-00000005 is damaged .*no other is whole; delete .* or give the run"):
        checkpoint.latest(tmp_path, pytest.fail)


@pytest.mark.parametrize("content", [None, "", "step-00000007", "../best/step-00000005", "/"])
def test_a_pointer_to_nowhere_leaves_the_newest_checkpoint(tmp_path: Path, content: str | None) -> None:
    for step in (4, 5):
        path = checkpoint.save(tmp_path, State(step=step), *trained(step), keep=2)
    pointer = tmp_path / checkpoint.POINTER
    pointer.unlink() if content is None else pointer.write_text(content)
    said: list[str] = []
    assert checkpoint.latest(tmp_path, said.append) == (path, State(step=5))
    assert len(said) == (content != "../best/step-00000005")


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert found(tmp_path) is None and found(tmp_path / "nowhere") is None


def test_long_settings_are_told_apart() -> None:
    one, two = "/data/" + "x" * 60 + "/a", "/data/" + "x" * 60 + "/b"
    assert checkpoint._told_apart(one, two)[0] != checkpoint._told_apart(one, two)[1]
    assert checkpoint._told_apart(1, 2) == ["1", "2"]
