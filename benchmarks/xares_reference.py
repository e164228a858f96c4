"""PyPI's `xares` 0.1.3 at work, for benchmarks/xares.py: one whole run in a process of its own.

PYTHON -I benchmarks/xares_reference.py SPEC

It runs under the reference's own Python, which need not know Auricle. The reference's code is the published one,
started as `python -m xares.run --max-jobs 0` would (the only way it has without CUDA). Changed from outside:

- `torchaudio.load` reads through soundfile. Later torchaudio decodes through torchcodec; where that is missing, the
  reference skips every clip without an error and writes empty tars. Resampling is its own, torchaudio's.
- The task is the reference's ESC-50 with the folds, the number of classes and the seed of the spec.
- Its three stages are timed, and its heads may train on fewer threads than its encoder.
- After the run, heads are trained again from other seeds, to know how far its score depends on them.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import tasks.esc50_task
import torch
import xares.run
from dasheng.pretrained.pretrained import Dasheng
from xares.task import XaresTask

SPEC: dict[str, Any] = json.loads(sys.argv[1])
STAGES = {"make_encoded_tar": "encode", "run_mlp": "mlp", "run_knn": "knn"}


class DashengEncoder(torch.nn.Module):
    """The encoder contract of X-ARES around PyPI's network; the reference finds it by the end of its name."""

    sampling_rate, hop_size_in_ms = 16_000, 40

    def __init__(self) -> None:
        """Load the file of the spec; its front end is computed, for the file holds none."""
        super().__init__()
        stored = torch.load(SPEC["weights"], weights_only=True)
        self.model = Dasheng(**stored["config"]).eval()
        expected = {key for key in self.model.state_dict() if not key.startswith("front_end.")}
        if expected != stored["model"].keys():
            sys.exit(f"the weights do not fit: {sorted(expected ^ stored['model'].keys())[:5]}")
        self.model.load_state_dict(stored["model"], strict=False)
        self.output_dim = self.model.embed_dim

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """(B, N) at 16 kHz → (B, T, D)."""
        return self.model(audio)


def esc_config(encoder: torch.nn.Module | None) -> Any:
    """The reference's ESC-50, of which it finds this by the end of its name."""
    config = tasks.esc50_task.esc50_config(encoder)
    config.env_root, config.name = SPEC["env"], SPEC["task"]
    config.k_fold_splits, config.output_dim, config.seed = SPEC["folds"], SPEC["classes"], SPEC["seed"]
    config.torch_num_threads = SPEC["threads"]
    config.update_tar_name_of_split()
    return config


def load(file: str) -> tuple[torch.Tensor, int]:
    """What `torchaudio.load` gives: (channels, samples) float32, and the rate in Hz."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate


def timed(name: str, into: dict[str, Any]) -> Callable[[XaresTask], Any]:
    """A stage of the reference that notes its wall time, and the score where it gives one."""
    plain, stage = getattr(XaresTask, name), STAGES[name]

    def run(task: XaresTask) -> Any:
        torch.set_num_threads(SPEC["threads" if stage == "encode" else "head_threads"])
        start = time.perf_counter()
        result = plain(task)
        into[f"{stage}_s"] = time.perf_counter() - start
        if result is not None:
            into[stage] = float(result[0])
        return result

    return run


def run() -> dict[str, Any]:
    """Encode, train, test; seconds count from the moment the caller named, before this process was there."""
    found: dict[str, Any] = {}
    sys.modules["torchaudio"].load = load  # as the reference imported it
    plain_mlp = XaresTask.run_mlp
    for name in STAGES:
        setattr(XaresTask, name, timed(name, found))
    sys.path.append(str(Path(__file__).parent))  # behind site-packages: the script beside this one is named as they are
    own = Path(__file__).name
    xares.run.main(Namespace(encoder_py=own, tasks_py=[own], max_jobs=0, from_stage=0, to_stage=2))
    found["whole_s"], found["cpu_s"] = time.time() - SPEC["started"], time.process_time()
    if missing := {*STAGES.values()} - {key.removesuffix("_s") for key in found}:
        sys.exit(f"the reference ended without {sorted(missing)}")
    cache = Path(SPEC["env"], SPEC["task"], "embeddings", DashengEncoder.__name__)
    found["cache_bytes"] = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    np.save(SPEC["pooled"], means(cache))
    return {**found, "more_mlp": [again(seed, plain_mlp) for seed in SPEC["more_seeds"]]}


def again(seed: int, run_mlp: Callable[[XaresTask], Any]) -> dict[str, float]:
    """Score and seconds of the linear heads from another seed, on the reference's own number of threads."""
    config = esc_config(DashengEncoder())
    config.seed, config.ckpt_dir_name = seed, f"checkpoints-{seed}"
    task = XaresTask(config)
    start = time.perf_counter()
    return {"mlp": float(run_mlp(task)[0]), "mlp_s": time.perf_counter() - start}


def means(cache: Path) -> np.ndarray:
    """Mean over the frames of each clip the reference stored, (n, D), in its order."""
    rows = []
    for fold in SPEC["folds"]:
        for file in sorted(cache.glob(f"wds-encoded-fold-{fold}-*.tar")):
            with tarfile.open(file) as tar:
                stored = (tar.extractfile(member) for member in tar if member.name.endswith(".npy"))
                rows += [np.load(io.BytesIO(frames.read())).mean(0) for frames in stored if frames]
    return np.stack(rows)


if __name__ == "__main__":
    Path(SPEC["out"]).write_text(json.dumps(run()), encoding="utf-8")
