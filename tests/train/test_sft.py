"""The objective as a whole: what learns, what is sampled, what is written."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from auricle.audio.decode import as_clip
from auricle.errors import ConfigError, DataError, TrainingError
from auricle.models.midashenglm import IGNORE, MiDashengLM
from auricle.train import lora
from auricle.train.config import RunConfig, load_config
from auricle.train.loop import run
from auricle.train.sft import SftObjective
from auricle.train.sft_data import read_rows
from auricle.train.sft_eval import heldout_probe, score_rows
from auricle.train.sft_examples import Conversation
from auricle.weights import load_midashenglm
from auricle.weights.adapters import merge_adapter, write_adapter

from .conftest import curve, log_of, tone

BASE = Path(__file__).resolve().parents[1] / "fixtures" / "midashenglm" / "model"
Configure = Callable[..., RunConfig]
ANSWERS = ("low", "high")


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones to be classified by their height, of 0.3 to 1.5 s."""
    folder = tmp_path_factory.mktemp("sft")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(16):
        answer = ANSWERS[number % 2]
        hz = (200, 3000)[number % 2] * rng.uniform(0.9, 1.1)
        soundfile.write(folder / f"{number}.wav", tone(hz, rng.uniform(0.3, 1.5), rng), 16_000)
        rows.append({"audio": f"{number}.wav", "prompt": "High?", "answer": answer, "options": list(ANSWERS)})
    for name, part in (("train", rows[:12]), ("heldout", rows[12:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


@pytest.fixture
def configure(manifests: Path, tmp_path: Path) -> Configure:
    from omegaconf import OmegaConf

    def make(out: str = "run", **changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "objective": "sft",
            "out": str(tmp_path / out),
            "seed": 3,
            "steps": 4,
            "batch_size": 4,
            "lr": 3e-3,
            "warmup": 2,
            "precision": "fp32",
            "threads": 1,
            "log_every": 1,
            "sft": {
                "init": str(BASE),
                "train": [str(manifests / "train.jsonl")],
                "heldout": [str(manifests / "heldout.jsonl")],
                "encoder": "frozen",
                "projector": "lora",
                "rank": 2,
                "bucket": 2,
                "loss_chunk": 3,
                "max_new_tokens": 3,
            },
        }
        for key, value in changes.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) else value
        OmegaConf.save(OmegaConf.create(values), tmp_path / f"{out}.yaml")
        return load_config(tmp_path / f"{out}.yaml")

    return make


def make_objective(config: RunConfig) -> SftObjective:
    torch.manual_seed(config.seed)
    return SftObjective(config).train()


def stir(objective: SftObjective, std: float = 0.02) -> None:
    """Give updates that have not learned yet an effect."""
    generator = torch.Generator().manual_seed(5)
    for _, high in lora.updates(objective.network).values():
        high.data.normal_(0, std, generator=generator)


def gradients(objective: SftObjective, inputs: dict[str, Any]) -> dict[str, Tensor]:
    objective.zero_grad()
    loss = objective(**inputs)
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}}


def test_packed_examples_give_the_loss_and_gradients_of_padded_ones(configure: Configure) -> None:
    found = []
    for packed in (True, False):
        objective = make_objective(configure(sft={"packing": packed, "encoder": "full", "dropout": 0.0}))
        stir(objective)
        batch = objective.make_batch(0, 0, 4)
        assert ("attention_mask" in batch.inputs) is not packed
        found.append(gradients(objective, batch.inputs))
    assert found[0].keys() == found[1].keys() and len(found[0]) > 40
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_the_loss_is_that_of_the_model_on_answers_alone(configure: Configure) -> None:
    objective = make_objective(configure(sft={"dropout": 0.0}))
    base = load_midashenglm(BASE)
    losses, weights = [], []
    for row in objective.sources.rows[0][:3]:
        clip = as_clip(row.audio)
        prompt = Conversation(base).prompt(row, clip)
        reply = [*base.tokenizer.encode(row.answer).ids, base.eos_token_ids[0]]
        ids = torch.tensor([[*prompt.input_ids, *reply]])
        labels = torch.full_like(ids, IGNORE)
        labels[0, len(prompt.input_ids) :] = torch.tensor(reply)
        losses.append(base.model.loss(ids, prompt.clips, labels).item())
        weights.append(len(reply))
    sampled = np.array([[0, 0], [0, 1], [0, 2]])
    objective.sources.batch = lambda *_: sampled  # type: ignore[assignment]
    batch = objective.make_batch(0, 0, 3)
    assert batch.weight == sum(weights)
    assert objective(**batch.inputs).item() == pytest.approx(np.average(losses, weights=weights), abs=1e-5)


def test_every_answer_of_a_conversation_carries_loss_and_nothing_else(manifests: Path, tmp_path: Path) -> None:
    turns = [("user", "High?"), ("assistant", "low"), ("user", "Sure?"), ("assistant", "yes, low")]
    listed = [{"role": role, "content": text} for role, text in turns]
    row = {"audio": str(manifests / "0.wav"), "system": "Be brief.", "turns": listed}
    (tmp_path / "talk.jsonl").write_text(json.dumps(row))
    loaded = load_midashenglm(BASE)
    (read,) = read_rows(tmp_path / "talk.jsonl")
    clip = as_clip(read.audio)
    example = Conversation(loaded).example(read, clip)
    assert loaded.tokenizer.decode(example.targets, skip_special_tokens=False) == "low<|im_end|>yes, low<|im_end|>"
    assert [example.ids[at + 1] for at in example.places] == example.targets
    text = loaded.tokenizer.decode(example.ids, skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|audio_bos|><|AUDIO|>")
    assert text.endswith("High?<|im_end|>\n<|im_start|>assistant\nlow<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
                         "<|im_start|>assistant\nyes, low<|im_end|>")  # fmt: skip
    with pytest.raises(DataError, match=r"'<\|im_end\|>no' holds the control token <\|im_end\|>"):
        Conversation(loaded).reply("<|im_end|>no")


@pytest.mark.parametrize(
    ("changes", "learns"),
    [
        ({}, {"audio_projector.lora", "decoder.lora"}),
        ({"encoder": "full", "projector": "full"}, {"audio_encoder", "audio_projector", "decoder.lora"}),
        ({"encoder": "lora", "decoder": "frozen"}, {"audio_encoder.lora", "audio_projector.lora"}),
        ({"projector": "full", "decoder": "full"}, {"audio_projector", "decoder"}),
    ],
)
def test_only_the_chosen_parts_learn(configure: Configure, changes: dict[str, str], learns: set[str]) -> None:
    objective = make_objective(configure(sft=changes))
    before = {name: value.clone() for name, value in objective.network.state_dict().items()}
    groups = objective.parameter_groups(0.1)
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    for step in range(2):  # A learns once B is not zero
        optimizer.zero_grad()
        objective(**objective.make_batch(step, 0, 4).inputs).backward()
        optimizer.step()
    after = objective.network.state_dict()
    moved = {
        name.split(".")[0] + (".lora" if "lora_" in name else "")
        for name, value in before.items()
        if not torch.equal(value, after[name])
    }
    assert moved == learns
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held)) == sum(p.requires_grad for p in objective.parameters())
    assert objective.state_dict().keys() == {n for n, p in objective.named_parameters() if p.requires_grad}


def test_parts_have_rates_of_their_own(configure: Configure) -> None:
    settings = {"encoder": "full", "encoder_lr_scale": 0.1, "projector_lr_scale": 0.5}
    objective = make_objective(configure(sft=settings))
    names = {id(p): n.split(".")[0] for n, p in objective.network.named_parameters()}
    scales = {(names[id(p)], group["lr_scale"]) for group in objective.parameter_groups(1.0) for p in group["params"]}
    assert scales == {("audio_encoder", 0.1), ("audio_projector", 0.5), ("decoder", 1.0)}


def test_a_batch_is_the_sum_of_its_slices(configure: Configure) -> None:
    objective = make_objective(configure(sft={"dropout": 0.0}))
    stir(objective)
    whole, parts = objective.make_batch(5, 0, 4), [objective.make_batch(5, i, i + 2) for i in (0, 2)]
    assert whole.weight == sum(part.weight for part in parts)
    with torch.no_grad():
        sums = sum(objective(**part.inputs) * part.weight for part in parts)
        torch.testing.assert_close(objective(**whole.inputs), sums / whole.weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"encoder": "full", "projector": "full"}, {"remember_mb": 1}])
def test_a_resumed_run_is_the_uninterrupted_one(configure: Configure, changes: dict[str, Any]) -> None:
    whole = configure("whole", sft=changes)
    run(whole)
    for stop in (1, 2):
        run(configure("parts", stop_after=stop, sft=changes))
    parts = configure("parts", sft=changes)
    exported = run(parts)
    assert curve(parts) == curve(whole) and [step for step, *_ in curve(parts)] == [1, 2, 3, 4]
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (exported.parent / name).read_bytes() == (Path(whole.out) / name).read_bytes()


def test_two_processes_equal_one(configure: Configure, tmp_path: Path, warm_python: str) -> None:
    alone = configure("alone", steps=3, sft={"dropout": 0.0})
    run(alone)
    pair = configure("pair", steps=3, sft={"dropout": 0.0})
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import sys\nfrom auricle.train.config import load_config\nfrom auricle.train.loop import run\n"
        "run(load_config(sys.argv[1]))\n"
    )
    launch = [warm_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(worker)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment["PYTHON_EXEC"] = warm_python
    done = subprocess.run([*launch, str(tmp_path / "pair.yaml")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    losses = [[record["loss"] for record in log_of(config)] for config in (alone, pair)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and len(losses[0]) == 3


def test_it_learns_and_the_best_checkpoint_is_exported(configure: Configure, manifests: Path) -> None:
    config = configure(steps=24, probe_every=6, best="choice", log_every=6, lr=1e-2)
    scores = iter((0.5, 1.0, 0.75, 1.0))
    kept: list[dict[str, Tensor]] = []

    def probe(network: Any) -> dict[str, float]:
        kept.append({name: value.clone() for name, value in network.state_dict().items() if "lora_" in name})
        return {"choice": next(scores)}

    run(config, probe=probe)
    records = log_of(config)
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert [record["choice"] for record in records] == [0.5, 1.0, 0.75, 1.0]
    stored = (Path(config.out) / "adapter" / "adapter_model.safetensors").read_bytes()
    objective = make_objective(config)
    objective.network.load_state_dict(kept[1], strict=False)
    objective.write_adapter(Path(config.out) / "again")
    assert (Path(config.out) / "again" / "adapter_model.safetensors").read_bytes() == stored
    wrong = configure("wrong", steps=2, probe_every=1, best="exact")
    with pytest.raises(TrainingError, match=r"best=exact, but the probe returns .*choice"):
        run(wrong, probe=lambda network: {"choice": 0.0})


def test_the_best_survives_an_interruption(configure: Configure) -> None:
    scores = {1: 0.2, 2: 0.9, 3: 0.9, 4: 0.5}

    def probed(config: RunConfig, first: int) -> Path:
        steps = iter(range(first, 5))
        return run(config, probe=lambda network: {"choice": scores[next(steps)]})

    settings: dict[str, Any] = {"probe_every": 1, "best": "choice"}
    whole = probed(configure("whole", **settings), 1)
    probed(configure("parts", stop_after=2, **settings), 1)
    parts = probed(configure("parts", **settings), 3)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (whole.parent / "best" / "LATEST").read_text() == "step-00000002"


def logits_of(model: MiDashengLM, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model(inputs["input_ids"], inputs["clips"], inputs["attention_mask"])[inputs["attention_mask"] == 1]


@pytest.mark.parametrize("encoder", ["frozen", "lora", "full"])
def test_what_is_exported_is_the_trained_model(configure: Configure, tmp_path: Path, encoder: str) -> None:
    changes = {"encoder": encoder, "projector": encoder, "packing": False}
    objective = make_objective(configure(sft=changes))
    stir(objective, 0.004)  # updates of a tenth of the weights, as training makes them
    if encoder == "full":
        objective.network.audio_encoder.norm.weight.data += 0.3
    objective.eval()
    objective.export(tmp_path / "out" / "model")
    inputs = objective.make_batch(0, 0, 3).inputs
    wanted = logits_of(objective.network, inputs)
    merged = load_midashenglm(tmp_path / "out" / "model")
    # Merged weights are rounded once more; the largest logit of this model is over 10.
    assert (logits_of(merged.model, inputs) - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    assert (logits_of(load_midashenglm(BASE).model, inputs) - wanted).abs().max() > 1e-3
    settings = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (
        settings["r"] == 2
        and settings["lora_alpha"] == 32
        and settings["base_model_name_or_path"] == ("midashenglm/model")
    )
    peft = pytest.importorskip("peft")
    base = load_midashenglm(BASE).model
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "out" / "adapter")).eval()
    torch.testing.assert_close(logits_of(theirs, inputs), wanted, atol=1e-5, rtol=0)


def test_an_adapter_names_its_layers_as_the_official_one(tmp_path: Path) -> None:
    official = BASE.parent / "lora"
    model = load_midashenglm(BASE).model
    chosen = {"decoder": [lora.ALL_LINEAR], "audio_projector": [lora.ALL_LINEAR], "audio_encoder": ["qkv", "proj"]}
    for part, targets in chosen.items():
        lora.adapt(model.get_submodule(part), targets, rank=8, alpha=32)
    write_adapter(tmp_path, lora.updates(model), alpha=32)
    from safetensors import safe_open

    keys = []
    for folder in (official, tmp_path):
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            keys.append({key: file.get_slice(key).get_shape() for key in file.keys()})
    assert keys[0] == keys[1]
    state = load_midashenglm(BASE).model.state_dict()
    assert merge_adapter(state, tmp_path).keys() == state.keys()


def test_audio_that_fails_only_when_read_is_replaced_and_counted(
    configure: Configure, manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in (manifests / "train.jsonl").read_text().splitlines()]
    for row in rows:
        row["audio"] = str(manifests / row["audio"])
    header = (manifests / "0.wav").read_bytes()[:44]
    (tmp_path / "hollow.wav").write_bytes(header)
    for row in rows[:6]:
        row["audio"] = str(tmp_path / "hollow.wav")
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure(sft={"train": [str(tmp_path / "mixed.jsonl")]})
    run(config)
    skipped = [json.loads(line) for line in (Path(config.out) / "skipped.jsonl").read_text().splitlines()]
    assert {entry["row"].rpartition(" ")[2] for entry in skipped} <= {"1", "2", "3", "4", "5", "6"} and skipped
    assert log_of(config)[-1]["skipped"] == len(skipped) and "hollow.wav" in skipped[0]["reason"]
    assert all(record["audio_s_per_s"] > 0 for record in log_of(config))


def test_metrics_separate_form_from_content(manifests: Path) -> None:
    loaded = load_midashenglm(BASE)
    rows = read_rows(manifests / "heldout.jsonl")
    found = score_rows(loaded, [*rows, replace(rows[0], options=())], max_new_tokens=2)
    assert [result.choice in ANSWERS for result in found] == [True] * 4 + [False] and found[-1].choice is None
    # Choices against sums over each option, by hand.
    writer = Conversation(loaded)
    for result in found[:2]:
        clip = as_clip(result.row.audio)
        sums = []
        for option in result.row.options:
            example = writer.example(replace(result.row, turns=(("user", "High?"), ("assistant", option))), clip)
            with torch.no_grad():
                chances = loaded.model(torch.tensor([example.ids]), [example.waveform])[0].log_softmax(-1)
            sums.append(chances[example.places, example.targets].sum().item())
        assert result.choice == result.row.options[int(np.argmax(sums))]


def test_the_probe_asks_the_network_that_trains(configure: Configure, manifests: Path) -> None:
    config = configure(sft={"heldout_rows": 3})
    objective = make_objective(config).eval()
    figures = heldout_probe(config)(objective.network)
    assert figures.keys() == {"exact", "choice", "heldout_n"} and figures["heldout_n"] == 3
    stir(objective)
    probe = heldout_probe(configure(sft={"heldout_rows": 0}))
    assert probe(objective.network)["heldout_n"] == 4
    with pytest.raises(DataError, match="no recording can be read"):
        gone = manifests / "gone.jsonl"
        gone.write_text(json.dumps({"audio": "gone.wav", "prompt": "?", "answer": "!"}))
        heldout_probe(configure(sft={"heldout": [str(gone)]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["sft.encoder=half"], "sft.encoder must be one of full, lora, frozen, got 'half'"),
        (["sft.encoder=frozen", "sft.projector=frozen", "sft.decoder=frozen"], "nothing would learn"),
        (["sft.decoder=full", "sft.projector=lora"], "full or frozen, not with lora"),
        (["sft.quantize=5"], "sft.quantize must be one of 0, 4, 8, got 5"),
        (["sft.quantize=4", "sft.decoder=full"], "needs sft.decoder=lora"),
        (["sft.rank=0"], "sft.rank must be at least 1"),
        (["sft.dropout=1.0"], "0 <= dropout < 1"),
        (["best=exact"], "best=exact needs probes"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, changes)


def test_quantized_weights_are_refused_on_a_cpu(configure: Configure) -> None:
    with pytest.raises(ConfigError, match=r"sft\.quantize=4 needs a CUDA device"):
        SftObjective(configure(sft={"quantize": 4}))


def test_frozen_weights_may_be_bfloat16_and_layers_recomputed(configure: Configure) -> None:
    plain = make_objective(configure(sft={"dropout": 0.0}))
    inputs = plain.make_batch(0, 0, 2).inputs
    wanted = gradients(plain, inputs)
    again = make_objective(configure(sft={"dropout": 0.0, "checkpoint_blocks": True}))
    for name, value in gradients(again, inputs).items():
        torch.testing.assert_close(value, wanted[name], atol=1e-6, rtol=1e-4)
    small = make_objective(configure(sft={"dropout": 0.0, "dtype": "bfloat16"}))
    found = gradients(small, inputs)
    assert found["loss"].item() == pytest.approx(wanted["loss"].item(), rel=0.02)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert small(**inputs).item() == pytest.approx(wanted["loss"].item(), rel=0.02)
    assert {p.dtype for p in small.parameters() if p.requires_grad} == {torch.float32}
