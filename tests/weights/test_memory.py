"""The memory a model needs, the memory available, and the message where it does not fit."""

from pathlib import Path

import pytest
import torch

from auricle.errors import WeightsError
from auricle.models.int8 import has_int8_kernel
from auricle.weights import load_dasheng, load_midashenglm, loaders, memory, safe
from auricle.weights.construct import LazyTensor
from auricle.weights.lm_layouts import read_midashenglm
from auricle.weights.memory import MemoryNeed, available_bytes, check_memory, memory_need

CPU = torch.device("cpu")
KIB = 1024


def group(root: Path, name: str, files: dict[str, str]) -> None:
    folder = root / "sys/fs/cgroup" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_text(content)


def machine(root: Path, available_kib: int, groups: str = "") -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {available_kib} kB\n")
    (root / "proc/self/cgroup").write_text(groups)


def test_a_machine_without_limits(tmp_path: Path) -> None:
    machine(tmp_path, 1000)
    assert available_bytes(CPU, tmp_path) == 1000 * KIB


def test_the_tightest_group_counts_and_its_page_cache_is_free(tmp_path: Path) -> None:
    machine(tmp_path, 1000, "0::/a/b\n")
    group(tmp_path, "", {"cpu.max": "max 1"})
    group(tmp_path, "a", {"memory.max": "500000\n", "memory.current": "400000\n", "memory.stat": "inactive_file 7\n"})
    group(tmp_path, "a/b", {"memory.max": "max\n", "memory.current": "300000\n"})
    assert available_bytes(CPU, tmp_path) == 100_007
    group(tmp_path, "a/b", {"memory.max": "310000", "memory.stat": "anon 5\ninactive_file 20\nactive_file 10\n"})
    assert available_bytes(CPU, tmp_path) == 10_030


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    machine(tmp_path, 1000, "5:cpu:/\n4:memory,hugetlb:/docker/x\n0::/\n")
    facts = {"memory.limit_in_bytes": "9000", "memory.usage_in_bytes": "8500", "memory.stat": "total_active_file 100\n"}
    group(tmp_path, "memory", facts)  # in a container the mount itself is the group
    assert available_bytes(CPU, tmp_path) == 600
    group(tmp_path, "memory", {"memory.usage_in_bytes": "9900"})
    assert available_bytes(CPU, tmp_path) == 0


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert available_bytes(CPU, tmp_path) is None
    assert available_bytes(torch.device("meta")) is None
    check_memory(MemoryNeed(10**15, 0, 0), torch.device("meta"), "x", {})


def test_here_is_some_memory() -> None:
    found = available_bytes(CPU)
    assert found is None or 10**6 < found < 10**14


def test_what_is_mapped_and_what_is_allocated() -> None:
    half = torch.zeros(10, 10, dtype=torch.bfloat16)
    state = {
        "w": half,
        "audio_encoder.init_bn.weight": torch.zeros(4),
        "steps": torch.tensor(1),
        "tied": half,
        "made": LazyTensor(torch.Size((5, 6)), torch.bfloat16, lambda: half),
    }
    assert memory_need(state, torch.bfloat16, CPU) == (60, 200 + 16 + 8, 120)
    assert memory_need(state, torch.float32, CPU) == (400 + 120, 16 + 8, 120)
    assert memory_need(state, torch.bfloat16, CPU, lambda key: key in ("w", "made")) == (100 + 30, 200 + 16 + 8, 120)
    assert memory_need(state, torch.bfloat16, torch.device("cuda")).mapped == 0


def test_the_need_of_a_folder_is_its_size(lm_folder: Path) -> None:
    state = read_midashenglm(lm_folder).state
    need = memory_need(state, torch.float32, CPU)
    assert need.anonymous == 0
    size = sum(tensor.nbytes for name, tensor in safe.read_tensors(lm_folder).items() if ".front_end." not in name)
    assert need.total == need.mapped == size
    half = memory_need(state, torch.bfloat16, CPU)
    assert abs(half.anonymous - size / 2) < 0.01 * size


def test_a_model_that_does_not_fit_is_refused_with_advice(lm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2_500_000)
    monkeypatch.setattr(loaders, "fill", None)  # must not be reached
    message = r"model: needs 4 MB of memory \(0 MB allocated, 4 MB mapped from the file\), 2 MB are available; use "
    with pytest.raises(WeightsError, match=message) as caught:
        load_midashenglm(lm_folder)
    message = str(caught.value)
    assert "use dtype='bfloat16' (2 MB), " in message and message.endswith("a machine with more memory, or a server")
    assert ("quantize='int8' (" in message) == has_int8_kernel()
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    with pytest.raises(WeightsError, match=r"0 MB are available; use dtype='bfloat16' \("):
        load_dasheng(lm_folder)


def test_advice_is_only_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    need = MemoryNeed(33_000_000_000, 0, 0)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 22_000_000_000)
    ways = {"dtype='bfloat16'": MemoryNeed(0, 16_600_000_000, 0), "dtype='float64'": MemoryNeed(66_000_000_000, 0, 0)}
    wanted = r"m: needs 33\.0 GB .*22\.0 GB are available; use dtype='bfloat16' \(16\.6 GB\), a machine"
    with pytest.raises(WeightsError, match=wanted):
        check_memory(need, CPU, "m", ways)
    with pytest.raises(WeightsError, match=r"are available; use a machine with more memory"):
        check_memory(need, CPU, "m", {})
    check_memory(ways["dtype='bfloat16'"], CPU, "m", {})
