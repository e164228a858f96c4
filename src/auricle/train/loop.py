"""The training loop: one for every objective, one process or many (``torchrun``)."""

import atexit
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from auricle.data.batches import prefetch
from auricle.data.order import rank_slice
from auricle.errors import ConfigError, TrainingError
from auricle.files import append_bytes, locked, make_folder, write_text
from auricle.models.blocks import CPU_HAS_BFLOAT16
from auricle.models.qwen_attention import Layout
from auricle.train import checkpoint
from auricle.train.config import RunConfig, dump_config
from auricle.train.objective import Batch, Objective
from auricle.train.schedule import learning_rate
from auricle.weights.loaders import place_of

Log = dict[str, Any]


@dataclass(frozen=True)
class World:
    """Rank and number of the processes of a run."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0


def run(
    config: RunConfig,
    *,
    on_log: Callable[[Log], None] | None = None,
    probe: Callable[[nn.Module], Log] | None = None,
) -> Path:
    """Train until ``config.steps`` from the newest checkpoint of ``config.out``; returns the exported model's folder.

    Args:
        config: the run.
        on_log: called with every log record, by the main process.
        probe: called with the network every ``config.probe_every`` steps; what it returns is logged.

    Raises:
        TrainingError: the loss is not finite, or a checkpoint does not fit.
        ConfigError: fewer clips in a micro-batch than processes.
        OutputError: another run is writing ``config.out``, or it cannot be written.
    """
    world = _join_world(config)
    only_here = locked(make_folder(config.out)) if world.is_main else nullcontext()
    # Threads that prepare batches share the interpreter with thousands of small operations a step; at the usual 5 ms
    # a turn, each of those may wait that long.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with only_here:
            return _train(config, world, on_log or (lambda record: None), probe)
    finally:
        sys.setswitchinterval(interval)


def _train(
    config: RunConfig, world: World, on_log: Callable[[Log], None], probe: Callable[[nn.Module], Log] | None
) -> Path:
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    objective = _build(config)
    objective.to(place_of("float32", config.device)[1]).train()
    optimizer = torch.optim.AdamW(
        objective.parameter_groups(config.lr), betas=(0.9, config.beta2), weight_decay=config.weight_decay, foreach=True
    )
    out = Path(config.out)
    found = checkpoint.latest(out / "checkpoints")
    first = checkpoint.restore(found, objective, optimizer) if found else 0
    journal = _Journal(out, config, first, on_log) if world.is_main else None
    if journal:
        objective.prepare_output(out)
    wrapped = DistributedDataParallel(objective) if world.size > 1 else objective
    last = min(config.steps, first + config.stop_after) if config.stop_after else config.steps
    saved_at = time.monotonic()
    for step, micro_batches in zip(range(first, last), _batches(config, objective, world, first, last), strict=True):
        record = _step(config, world, step, wrapped, optimizer, micro_batches)
        due = config.probe_every and (step + 1) % config.probe_every == 0
        if journal:
            record |= objective.log_values()
            if due and probe:
                record |= _probe(objective, probe)
                if config.best and journal.is_best(record):
                    checkpoint.save(out / "best", step + 1, objective, optimizer, keep=1)
            journal.add(step, record, force=bool(due) or step + 1 == last)
            # Only where a log record ends, so that a resumed run averages over the same steps.
            late = time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            if step + 1 == last or (late and (step + 1) % config.log_every == 0):
                checkpoint.save(out / "checkpoints", step + 1, objective, optimizer, keep=config.keep)
                saved_at = time.monotonic()
    if world.is_main and last == config.steps:
        if best := checkpoint.latest(out / "best") if config.best else None:
            checkpoint.restore(best, objective, optimizer)
        objective.export(out / "model")
    return out / "model"


def precision_here(config: RunConfig) -> str:
    """``config.precision``, but "fp32" on a CPU without bfloat16 arithmetic, which would have to emulate it."""
    return config.precision if CPU_HAS_BFLOAT16 or not config.device.startswith("cpu") else "fp32"


def _build(config: RunConfig) -> Objective:
    if config.objective == "mae":
        from auricle.train.mae import MaeObjective

        return MaeObjective(config)
    if config.objective == "sft":
        from auricle.train.sft import SftObjective

        return SftObjective(config)
    if config.objective == "align":
        from auricle.train.align import AlignObjective

        return AlignObjective(config)
    from auricle.train.caption import CaptionObjective

    return CaptionObjective(config)


def _batches(config: RunConfig, objective: Objective, world: World, first: int, last: int) -> Iterator[list[Batch]]:
    """The micro-batches of this process for each step, prepared ahead."""
    size = config.batch_size // config.accumulate
    start, stop = rank_slice(size, world.rank, world.size)

    def prepare(step: int) -> list[Batch]:
        return [
            objective.make_batch(step, micro * size + start, micro * size + stop) for micro in range(config.accumulate)
        ]

    return prefetch(prepare, range(first, last), depth=2 * config.workers, workers=config.workers)


def _step(
    config: RunConfig,
    world: World,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
) -> Log:
    started = time.monotonic()
    totals = torch.tensor([float(sum(b.weight for b in batches)), sum(b.audio_s for b in batches)])
    if world.size > 1:
        dist.all_reduce(totals)
    rate = learning_rate(step, peak=config.lr, warmup=config.warmup, total=config.steps, floor=config.lr_floor)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    loss_sum = torch.zeros(())
    for number, batch in enumerate(batches):
        more = number + 1 < len(batches)
        hold = model.no_sync() if more and isinstance(model, DistributedDataParallel) else nullcontext()
        rounded = precision_here(config) == "bf16"
        with hold, torch.autocast(config.device.split(":")[0], torch.bfloat16, enabled=rounded):
            loss = model(**_to_device(batch.inputs, config.device))
            # Every process contributes the share of its own items; DDP averages, hence the world size.
            share = batch.weight / float(totals[0])
            (loss * (share * world.size)).backward()
        loss_sum += loss.detach().float().cpu() * share
    if world.size > 1:
        dist.all_reduce(loss_sum)
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    if not torch.isfinite(loss_sum) or not torch.isfinite(norm):
        raise TrainingError(
            f"step {step}: loss {loss_sum.item()}, gradient norm {norm.item()}; lower lr or use precision=fp32"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {
        "loss": loss_sum.item(),
        "grad_norm": norm.item(),
        "lr": rate,
        "audio_s": totals[1].item(),
        "seconds": time.monotonic() - started,
    }


def _to_device(inputs: dict[str, Any], device: str) -> dict[str, Any]:
    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, Layout):
            return value.to(torch.device(device))
        return [move(item) for item in value] if isinstance(value, list) else value

    return {name: move(value) for name, value in inputs.items()}


def _probe(objective: Any, probe: Callable[[nn.Module], Log]) -> Log:
    objective.eval()
    with torch.no_grad():
        found = probe(objective.network)
    objective.train()
    return found


def _join_world(config: RunConfig) -> World:
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if config.batch_size // config.accumulate < size:
        raise ConfigError(
            f"batch_size {config.batch_size} / accumulate {config.accumulate} leaves some of {size} processes without "
            f"a clip; set batch_size to at least {size * config.accumulate}"
        )
    on_gpu = config.device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # "cuda" then means this one
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
        # Kept for further runs of this process: a group that was left cannot be joined again under the same torchrun.
        atexit.register(dist.destroy_process_group)
    return World(dist.get_rank(), dist.get_world_size())


class _Journal:
    """``log.jsonl`` of a run: one record every ``log_every`` steps, without gaps or repeats after a resume."""

    def __init__(self, out: Path, config: RunConfig, first: int, on_log: Callable[[Log], None]) -> None:
        write_text(out / "config.yaml", dump_config(config))
        self.path = out / "log.jsonl"
        kept = [line for line in self._lines() if json.loads(line)["step"] <= first]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.config, self.on_log = config, on_log
        values = [json.loads(line).get(config.best) for line in kept]
        self.best = max((value for value in values if value is not None), default=-math.inf)
        self.sums: Log = {}
        self.count = 0
        self.last = time.monotonic()

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        return [line for line in lines if line.endswith("}")]  # a kill may leave half a line

    def is_best(self, record: Log) -> bool:
        """Whether a probe found the highest ``config.best`` so far."""
        if self.config.best not in record:
            raise TrainingError(
                f"best={self.config.best}, but the probe returns {', '.join(record)}; name one of these"
            )
        is_higher = bool(record[self.config.best] > self.best)
        self.best = max(self.best, record[self.config.best])
        return is_higher

    def add(self, step: int, record: Log, *, force: bool) -> None:
        for key, value in record.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if not force and (step + 1) % self.config.log_every:
            return
        now = time.monotonic()
        means = {k: v / self.count for k, v in self.sums.items() if k in ("loss", "grad_norm", "lr")}
        probed = {k: v for k, v in record.items() if k not in ("loss", "grad_norm", "lr", "audio_s", "seconds")}
        speed = self.sums["audio_s"] / (now - self.last)
        eta = (self.config.steps - step - 1) * (now - self.last) / self.count
        entry = {"step": step + 1, **means, "audio_s_per_s": round(speed, 1), "eta_s": round(eta, 1), **probed}
        append_bytes(self.path, json.dumps(entry, allow_nan=False).encode() + b"\n")
        self.on_log(entry)
        self.sums, self.count, self.last = {}, 0, now
