import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from auricle.train.alignment_losses import (
    compat_bce_loss,
    compat_sigmoid_loss,
    compat_softmax_loss,
    shares_key,
    sigmoid_loss,
    softmax_loss,
)

KEYS = [[0, 10], [1, 11], [0, 12], [3, 11], [4, -1], [5, -1], [6, 16]]  # 0 and 2 one clip, 1 and 3 one caption


def pairs(seed: int = 0, count: int = 7, width: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio, text = (torch.randn(count, width, generator=generator) for _ in range(2))
    return F.normalize(audio, dim=1).requires_grad_(), F.normalize(text, dim=1).requires_grad_()


def scalars() -> tuple[Tensor, Tensor]:
    return torch.tensor(-1.5, requires_grad=True), torch.tensor(-2.0, requires_grad=True)


def written_out(name: str, audio: Tensor, text: Tensor, log_temperature: Tensor, bias: Tensor, keys: Tensor) -> Tensor:
    """Pair by pair, as the papers write it."""
    logits = audio @ text.T / log_temperature.exp()
    count, total = len(audio), torch.zeros(())
    allowed = [
        [i == j or not any(a == b >= 0 for a, b in zip(keys[i], keys[j], strict=True)) for j in range(count)]
        for i in range(count)
    ]
    for i in range(count):
        if name == "sigmoid":
            for j in range(count):
                if allowed[i][j]:
                    total = total - F.logsigmoid((logits[i, j] + bias) * (1 if i == j else -1))
        else:
            row = torch.stack([logits[i, j] for j in range(count) if allowed[i][j]])
            column = torch.stack([logits[j, i] for j in range(count) if allowed[j][i]])
            total = total + (row.logsumexp(0) + column.logsumexp(0) - 2 * logits[i, i]) / 2
    return total / count


def ours(
    name: str, audio: Tensor, text: Tensor, log_temperature: Tensor, bias: Tensor, keys: Tensor, **how: Any
) -> Any:
    if name == "sigmoid":
        return sigmoid_loss(audio, text, log_temperature, bias, keys, **how)
    return softmax_loss(audio, text, log_temperature, keys, **how)


def with_gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    loss.backward()
    return [loss.detach(), *(torch.zeros(()) if leaf.grad is None else leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
@pytest.mark.parametrize("chunk", [0, 1, 3, 7, 100])
def test_losses_and_gradients_are_those_written_out(name: str, chunk: int) -> None:
    keys = torch.tensor(KEYS)
    found = []
    for loss in (written_out, lambda *given: ours(*given, chunk=chunk)):
        leaves = (*pairs(), *scalars())
        found.append(with_gradients(loss(name, *leaves, keys), *leaves))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=9), st.integers(0, 4))
def test_chunks_change_nothing(rows: list[tuple[int, int]], chunk: int) -> None:
    keys = torch.tensor(rows)
    for name in ("sigmoid", "softmax"):
        leaves = (*pairs(1, len(rows)), *scalars())
        whole = with_gradients(ours(name, *leaves, keys), *leaves)
        again = (*pairs(1, len(rows)), *scalars())
        parts = with_gradients(ours(name, *again, keys, chunk=chunk), *again)
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_pairs_with_a_key_in_common_are_neither_true_nor_false() -> None:
    keys = torch.tensor(KEYS)
    common = shares_key(keys, keys)
    assert [(i, j) for i in range(7) for j in range(i + 1, 7) if common[i, j]] == [(0, 2), (1, 3)]
    for name in ("sigmoid", "softmax"):
        audio, text = pairs()
        loss = ours(name, audio, text, *scalars(), keys)
        moved = text.detach().clone()
        moved[2] = -moved[2]
        # Only the logits of caption 2 move: were clip 0 scored with it, its gradient would, too.
        (first,) = torch.autograd.grad(loss, audio)
        (second,) = torch.autograd.grad(ours(name, audio, moved, *scalars(), keys), audio)
        changed = (first - second).abs().sum(1) > 1e-7
        assert changed.tolist() == [False, True, True, True, True, True, True]


def test_a_common_caption_has_no_second_vote() -> None:
    """Each of the clips under one caption is pulled to it as if it were alone with it."""
    audio, text = pairs(count=4)
    same = torch.cat([text[:1].detach().expand(3, -1), text[3:].detach()])
    loss = sigmoid_loss(audio, same, *scalars(), torch.tensor([[0], [0], [0], [1]])) * 4
    (together,) = torch.autograd.grad(loss, audio)
    for clip in range(3):
        own = [clip, 3]
        loss = sigmoid_loss(audio[own], same[own], *scalars(), torch.tensor([[0], [1]])) * 2
        (alone,) = torch.autograd.grad(loss, audio)
        torch.testing.assert_close(together[clip], alone[clip])


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return out


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_chunks_never_hold_all_logits(name: str) -> None:
    audio, text = pairs(count=200)
    keys = torch.arange(200)[:, None]
    with Largest() as whole:
        ours(name, audio, text, *scalars(), keys).backward()
    with Largest() as parts:
        ours(name, audio, text, *scalars(), keys, chunk=10).backward()
    assert whole.elements >= 200 * 200 and parts.elements == 10 * 200


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_losses_are_float32_under_autocast(name: str) -> None:
    leaves = (*pairs(), *scalars())
    keys = torch.tensor(KEYS)
    plain = ours(name, *leaves, keys)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(name, *leaves, keys, chunk=2), ours(name, *leaves, keys, chunk=2))
        torch.testing.assert_close(ours(name, *leaves, keys), plain, rtol=1e-6, atol=0)


def test_released_losses_take_equal_captions_for_negatives() -> None:
    audio, text = pairs()
    temperature, counts = torch.tensor(0.07), torch.tensor([2, 1, 2, 1, 1, 1, 1])
    keys = torch.arange(7)[:, None]
    same = sigmoid_loss(audio, text, temperature.log(), torch.tensor(-10.0), keys)
    released = compat_sigmoid_loss(audio, text, temperature, torch.tensor(-10.0), regularise=False)
    torch.testing.assert_close(same, released)
    strict = sigmoid_loss(audio, text, temperature.log(), torch.tensor(-10.0), torch.tensor(KEYS))
    assert strict < released
    for loss, learned in ((compat_bce_loss, temperature), (compat_softmax_loss, -temperature.log())):
        assert loss(audio, text, learned, counts) != loss(audio, text, learned)


WORKER = """
import sys
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from auricle.train.alignment_losses import sigmoid_loss, softmax_loss

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
given = load_file(f"{folder}/given.safetensors")
own = slice(0, 3) if rank == 0 else slice(3, 7)
found = {}
for name in ("sigmoid", "softmax"):
    for chunk in (0, 2):
        audio, text = (given[key][own].clone().requires_grad_() for key in ("audio", "text"))
        scalars = [given[key].clone().requires_grad_() for key in ("log_temperature", "bias")]
        if name == "sigmoid":
            loss = sigmoid_loss(audio, text, *scalars, given["keys"][own], chunk=chunk, gather=True)
        else:
            loss = softmax_loss(audio, text, scalars[0], given["keys"][own], chunk=chunk, gather=True)
            scalars[1].grad = torch.zeros(())
        (loss * (len(audio) / 7)).backward()  # the share of a process, as the training loop weighs it
        shared = torch.stack([loss.detach() * (len(audio) / 7), *(scalar.grad for scalar in scalars)])
        dist.all_reduce(shared)
        found |= {f"{name}{chunk}.shared": shared, f"{name}{chunk}.audio": audio.grad, f"{name}{chunk}.text": text.grad}
save_file({key: value.contiguous() for key, value in found.items()}, f"{folder}/found{rank}.safetensors")
dist.destroy_process_group()
"""


def test_two_processes_find_the_loss_and_gradients_of_one(tmp_path: Path, warm_python: str) -> None:
    """Of uneven parts, with pairs of both processes that share keys."""
    keys = torch.tensor(KEYS)
    audio, text = pairs()
    log_temperature, bias = scalars()
    given = {"audio": audio, "text": text, "log_temperature": log_temperature, "bias": bias, "keys": keys}
    save_file({key: value.detach().clone() for key, value in given.items()}, tmp_path / "given.safetensors")
    (tmp_path / "worker.py").write_text(WORKER)
    command = [warm_python, str(tmp_path / "worker.py"), str(tmp_path)]
    workers = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors[-2000:]
    parts = [load_file(tmp_path / f"found{rank}.safetensors") for rank in (0, 1)]
    for name in ("sigmoid", "softmax"):
        leaves = (*pairs(), *scalars())
        loss, audio_grad, text_grad, *scalar_grads = with_gradients(ours(name, *leaves, keys), *leaves)
        for chunk in (0, 2):
            for key, expected in (("audio", audio_grad), ("text", text_grad)):
                found = torch.cat([part[f"{name}{chunk}.{key}"] for part in parts])
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
            shared = parts[0][f"{name}{chunk}.shared"]
            torch.testing.assert_close(shared, torch.stack([loss, *scalar_grads]), rtol=1e-5, atol=1e-6)
