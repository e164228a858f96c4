"""The training loop: one for every objective, one process or many (``torchrun``)."""

import atexit
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from auricle.data.untrusted_json import parse_object
from auricle.errors import ConfigError, DataError, TrainingError
from auricle.files import append_bytes, locked, make_folder, write_text
from auricle.models.blocks import CPU_HAS_BFLOAT16
from auricle.models.qwen_attention import Layout
from auricle.train import checkpoint
from auricle.train.checkpoint import State
from auricle.train.config import RunConfig, curve_settings, dump_config
from auricle.train.objective import Batch, Objective, build_objective
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
    should_stop: Callable[[], bool] | None = None,
    notify: Callable[[str], None] = warnings.warn,
) -> Path | None:
    """Train until ``config.steps`` from the newest checkpoint of ``config.out``.

    Args:
        config: the run.
        on_log: called with every log record, by the main process.
        probe: called with the network every ``config.probe_every`` steps; what it returns is logged.
        should_stop: called after every step; when it returns True, the run saves a checkpoint and stops.
        notify: called by the main process with a line on how a run is resumed, where that is not as usual.

    Returns:
        The exported model's folder; None: the run stopped before its end, and another call goes on from there.

    Raises:
        TrainingError: the loss is not finite, or the checkpoints in ``config.out`` are damaged or of another run.
        ConfigError: ``config.out`` is not set, or there are fewer clips in a micro-batch than processes.
        OutputError: another run is writing ``config.out``, or it cannot be written.
    """
    if not config.out:
        raise ConfigError("out is not set, expected the folder of this run alone; give it: --out FOLDER, or out=FOLDER")
    world = _join_world(config)
    only_here = locked(make_folder(config.out)) if world.is_main else nullcontext()
    # Threads that prepare batches share the interpreter with thousands of small operations a step; at the usual 5 ms
    # a turn, each of those may wait that long.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with only_here:
            return _train(
                config,
                world,
                on_log=on_log or (lambda record: None),
                probe=probe,
                should_stop=should_stop or (lambda: False),
                notify=notify if world.is_main else (lambda text: None),
            )
    finally:
        sys.setswitchinterval(interval)


def _train(
    config: RunConfig,
    world: World,
    *,
    on_log: Callable[[Log], None],
    probe: Callable[[nn.Module], Log] | None,
    should_stop: Callable[[], bool],
    notify: Callable[[str], None],
) -> Path | None:
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    objective = build_objective(config)
    objective.to(place_of("float32", config.device)[1]).train()
    optimizer = torch.optim.AdamW(
        objective.parameter_groups(config.lr),
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        foreach=True,
    )
    out = Path(config.out)
    begun = _resume(config, world, objective, optimizer, notify)
    journal = _Journal(out, config, begun, on_log) if world.is_main else None
    if journal:
        objective.prepare_output(out)

    def save(folder: str, step: int, keep: int) -> None:
        state = State(step=step, run=_decided(config, objective), log=journal.unfinished if journal else {})
        checkpoint.save(out / folder, state, objective, optimizer, keep=keep)

    wrapped: nn.Module = objective
    if world.size > 1:
        takes_turns = len(objective.updates(config.steps)) > 1
        wrapped = DistributedDataParallel(objective, find_unused_parameters=takes_turns)
    first = begun.step
    last = min(config.steps, first + config.stop_after) if config.stop_after else config.steps
    saved_at = time.monotonic()
    for step, micro_batches in zip(range(first, last), _batches(config, objective, world, first, last), strict=True):
        record = _step(config, world, step, wrapped, optimizer, micro_batches, objective.updates(step))
        due = config.probe_every and (step + 1) % config.probe_every == 0
        ends = _any(world, should_stop()) or step + 1 == last
        if journal:
            record |= objective.log_values()
            probed = _probe(objective, probe) if due and probe else {}
            journal.add(step, record | probed, force=bool(due) or step + 1 == config.steps)
            if due and probe and config.best and journal.is_best(probed):
                save("best", step + 1, 1)
            if ends or time.monotonic() - saved_at > 60 * config.checkpoint_minutes:
                save("checkpoints", step + 1, config.keep)
                saved_at = time.monotonic()
        if ends and step + 1 < config.steps:
            return None
    if world.is_main:
        if best := checkpoint.latest(out / "best", notify) if config.best else None:
            checkpoint.restore(best[0], objective, optimizer)
            checkpoint.tidy(best[0], keep=1)
        objective.export(out / "model")
    return out / "model"


def _decided(config: RunConfig, objective: Objective) -> Log:
    """What decides a run's curve, by name."""
    return {**curve_settings(config), **objective.provenance(), "steps": config.steps}


def _resume(
    config: RunConfig,
    world: World,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    notify: Callable[[str], None],
) -> State:
    """Load the newest checkpoint, if there is one, and return its state.

    Raises:
        TrainingError: it is of another run, it has done more steps than this one has, or there is none beside a model.
    """
    out = Path(config.out)
    found = checkpoint.latest(out / "checkpoints", notify)
    if not found:
        if (out / "model").exists():
            raise TrainingError(
                f"{out} holds a model and no checkpoint, so the run that made it cannot go on; give this one another "
                "folder (out=…)"
            )
        log = out / "log.jsonl"
        if log.is_file() and log.stat().st_size:
            notify(f"{out} holds a log and no checkpoint: training starts at step 0, the log is written anew")
        return State(step=0)
    path, state = found
    own = _decided(config, objective)
    steps, stored = own.pop("steps"), state.run.get("steps", config.steps)
    checkpoint.check_run(path, state.run, own)
    if not state.run:
        notify(f"{path} does not state the settings of its run: they are not compared with these")
    if state.step > steps:
        raise TrainingError(
            f"{path} has done {state.step} steps, this run has {steps}; set steps to at least {state.step}, or give "
            "the run another folder (out=…)"
        )
    if stored != steps:
        notify(f"{out} was started with {stored} steps, now it has {steps}: the learning rate follows from here on")
    checkpoint.restore(path, objective, optimizer)
    if world.is_main:
        checkpoint.tidy(path, keep=config.keep)
    return state


def _any(world: World, wanted: bool) -> bool:
    """Whether any process wants it."""
    if world.size == 1:
        return wanted
    flag = torch.tensor(float(wanted))
    dist.all_reduce(flag)
    return bool(flag)


def precision_here(config: RunConfig) -> str:
    """``config.precision``, but "fp32" on a CPU without bfloat16 arithmetic, which would have to emulate it."""
    return config.precision if CPU_HAS_BFLOAT16 or not config.device.startswith("cpu") else "fp32"


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
    updates: Sequence[Mapping[str, Any]],
) -> Log:
    started = time.monotonic()
    totals = torch.tensor([float(sum(b.weight for b in batches)), sum(b.audio_s for b in batches)])
    if world.size > 1:
        dist.all_reduce(totals)
    rate = learning_rate(step, peak=config.lr, warmup=config.warmup, total=config.steps, floor=config.lr_floor)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    for update in updates:
        loss = _backward(config, world, model, batches, float(totals[0]), update)
        # Both leave alone what has no gradients: parameters that this update is not about.
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        if not math.isfinite(loss) or not torch.isfinite(norm):
            raise TrainingError(
                f"step {step}: loss {loss}, gradient norm {norm.item()}; lower lr or use precision=fp32"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {
        "loss": loss,
        "grad_norm": norm.item(),
        "lr": rate,
        "audio_s": totals[1].item(),
        "seconds": time.monotonic() - started,
    }


def _backward(
    config: RunConfig,
    world: World,
    model: nn.Module,
    batches: list[Batch],
    weight: float,
    update: Mapping[str, Any],
) -> float:
    """Gradients of the mean loss over the items of all processes, ``weight`` in number; returns that loss."""
    loss_sum = torch.zeros(())
    for number, batch in enumerate(batches):
        more = number + 1 < len(batches)
        hold = model.no_sync() if more and isinstance(model, DistributedDataParallel) else nullcontext()
        rounded = precision_here(config) == "bf16"
        with hold, torch.autocast(config.device.split(":")[0], torch.bfloat16, enabled=rounded):
            loss = model(**_to_device(batch.inputs, config.device), **update)
            # Every process contributes the share of its own items; DDP averages, hence the world size.
            share = batch.weight / weight
            (loss * (share * world.size)).backward()
        loss_sum += loss.detach().float().cpu() * share
    if world.size > 1:
        dist.all_reduce(loss_sum)
    return loss_sum.item()


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

    _MEANS = ("loss", "grad_norm", "lr")

    def __init__(self, out: Path, config: RunConfig, begun: State, on_log: Callable[[Log], None]) -> None:
        write_text(out / "config.yaml", dump_config(config))
        self.path = out / "log.jsonl"
        kept = [record for record in self._records() if record["step"] <= begun.step]
        write_text(self.path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept))
        self.config, self.on_log = config, on_log
        values = [record.get(config.best) for record in kept]
        self.best = max((value for value in values if value is not None), default=-math.inf)
        self.sums: Log = dict.fromkeys(self._MEANS, 0.0) | begun.log.get("sums", {})
        self.count = begun.log.get("count", 0)
        self._start_clock()

    @property
    def unfinished(self) -> Log:
        """Of the record that is not complete yet."""
        return {"sums": self.sums, "count": self.count}

    def _start_clock(self) -> None:
        self.audio_s, self.steps, self.started = 0.0, 0, time.monotonic()

    def _records(self) -> list[Log]:
        if not self.path.exists():
            return []
        lines = self.path.read_text("utf-8", "replace").splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(parse_object(line, f"{self.path}, line {number}", allow_nan=False))
                records[-1]["step"] + 0
            except (DataError, KeyError, TypeError):
                if number < len(lines):  # a kill may leave half a line at the end
                    raise TrainingError(
                        f"{self.path}, line {number} is no record of a run: {line[:60]!r}; remove the line, or give "
                        "the run another folder (out=…)"
                    ) from None
        return records

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
        for key in self._MEANS:
            self.sums[key] += record[key]
        self.count += 1
        self.steps += 1
        self.audio_s += record["audio_s"]
        if not force and (step + 1) % self.config.log_every:
            return
        each_s = (time.monotonic() - self.started) / self.steps
        means = {key: value / self.count for key, value in self.sums.items()}
        probed = {key: value for key, value in record.items() if key not in (*self._MEANS, "audio_s", "seconds")}
        speed, eta = self.audio_s / (each_s * self.steps), (self.config.steps - step - 1) * each_s
        entry = {"step": step + 1, **means, "audio_s_per_s": round(speed, 1), "eta_s": round(eta, 1), **probed}
        append_bytes(self.path, json.dumps(entry, allow_nan=False).encode() + b"\n")
        self.on_log(entry)
        self.sums, self.count = dict.fromkeys(self._MEANS, 0.0), 0
        self._start_clock()
