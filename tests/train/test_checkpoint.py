from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from auricle import files
from auricle.errors import TrainingError
from auricle.train import checkpoint
from auricle.train.loop import run

from .conftest import Configure


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


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_a_checkpoint_holds_weights_and_moments(tmp_path: Path) -> None:
    model, optimizer = trained(3)
    path = checkpoint.save(tmp_path, 3, model, optimizer, keep=1)
    other, fresh = trained(0)
    assert checkpoint.latest(tmp_path) == path and checkpoint.restore(path, other, fresh) == 3
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

    patch.setattr(checkpoint, "save_file", before(checkpoint.save_file))
    patch.setattr(files, "_to_disk", before(files._to_disk))
    patch.setattr(files.os, "replace", before(files.os.replace))
    patch.setattr(checkpoint.shutil, "rmtree", before(checkpoint.shutil.rmtree))
    for name in ("mkdir", "rename", "write_text"):
        patch.setattr(Path, name, before(getattr(Path, name)))


@pytest.mark.parametrize("keep", [1, 2])
def test_a_kill_at_any_moment_of_writing_leaves_a_usable_checkpoint(tmp_path: Path, keep: int) -> None:
    early, late = trained(1), trained(2)
    known = {1: weights(early[0]), 2: weights(late[0])}
    found = []
    for moment in range(1, 40):
        folder = tmp_path / str(moment)
        checkpoint.save(folder, 1, *early, keep=keep)
        killed = True
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, moment)
            try:
                checkpoint.save(folder, 2, *late, keep=keep)
                killed = False
            except Killed:
                pass
        path = checkpoint.latest(folder)
        assert path is not None
        model, optimizer = trained(0)
        step = checkpoint.restore(path, model, optimizer)
        assert all(map(torch.equal, weights(model), known[step]))
        # The run goes on from there and writes the later one again.
        assert checkpoint.restore(checkpoint.save(folder, 2, *late, keep=keep), *trained(0)) == 2
        assert not list(folder.glob(".*"))
        found.append(step)
        if not killed:
            break
    assert not killed and found[0] == 1 and found[-1] == 2 and found == sorted(found) and len(found) > 8


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 12):
        checkpoint.save(tmp_path, step, *trained(1), keep=2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000003", "step-00000012"]


def test_a_later_one_left_by_a_kill_does_not_cost_the_present_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 20, *trained(1), keep=1)
    path = checkpoint.save(tmp_path, 15, *trained(1), keep=1)
    assert checkpoint.latest(tmp_path) == path and path.is_dir()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, *trained(1), keep=1)
    with pytest.raises(TrainingError, match=r"0.weight is \(4, 3\) there and \(4, 5\) here; .*out="):
        checkpoint.restore(path, *trained(0, width=5))
    model = nn.Linear(3, 4)
    with pytest.raises(TrainingError, match=r"in one of them only, such as 0\.bias"):
        checkpoint.restore(path, model, torch.optim.AdamW(model.parameters()))


def test_damage_is_named(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, *trained(1), keep=1)
    (path / "optimizer.safetensors").write_bytes(b"12345678garbage")
    with pytest.raises(TrainingError, match=path.name):
        checkpoint.restore(path, *trained(0))
    (path / "state.json").unlink()
    with pytest.raises(TrainingError, match="not a complete checkpoint; delete"):
        checkpoint.latest(tmp_path)
    assert checkpoint.latest(tmp_path / "nowhere") is None


def test_a_run_with_other_sizes_in_the_same_folder_is_refused(configure: Configure) -> None:
    run(configure("mae", stop_after=1))
    with pytest.raises(TrainingError, match="does not fit this configuration"):
        run(configure("mae", mae={"embed_dim": 64}))
