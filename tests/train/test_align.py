import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from auricle.data.shards import ShardWriter
from auricle.errors import ConfigError, DataError
from auricle.models.dasheng import Dasheng, DashengConfig
from auricle.models.glap import Glap
from auricle.models.text import StockTextConfig, build_text_tower
from auricle.train.align import AlignObjective, embed_cached
from auricle.train.config import RunConfig, load_config
from auricle.train.loop import run
from auricle.weights import load_glap, read_card, save_dasheng

from .conftest import RECIPE, Configure, curve, log_of, losses_of, tone

WORDS = ("low", "deep", "middle", "clear", "high", "shrill")
HZ = dict(zip(WORDS, (150, 320, 700, 1500, 3000, 6000), strict=True))
MAX_TOKENS = 12


def word_of(number: int) -> str:
    return WORDS[number % len(WORDS)]


def write_tones(folder: Path, name: str, count: int, seed: int, facts: Callable[[int], dict[str, Any]]) -> None:
    rng = np.random.default_rng(seed)
    with ShardWriter(folder, name) as writer:
        for number in range(count):
            hz = HZ[word_of(number)] * rng.uniform(0.95, 1.05)
            writer.write(f"{name}{number}", tone(hz, rng.uniform(0.3, 0.6), rng), facts(number))


def captions(number: int) -> dict[str, Any]:
    word = word_of(number)
    return {"captions": [f"a {word} tone", f"the sound of a {word} tone"], "caption_deu_Latn": [f"ein {word}", "ton"]}


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A random encoder and a random BERT with a tokenizer of whole words, as folders."""
    folder = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    save_dasheng(folder / "audio", Dasheng(DashengConfig(embed_dim=32, depth=1, num_heads=2)))
    words = sorted({word for number in range(6) for text in captions(number)["captions"] for word in text.split()})
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ein", "ton", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    settings = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_TOKENS,
    }
    text = folder / "text"
    text.mkdir()
    (text / "config.json").write_text(json.dumps(settings))
    tokenizer.save(str(text / "tokenizer.json"))
    tower = build_text_tower(StockTextConfig(settings=settings))
    save_file({k.removeprefix("network."): v for k, v in tower.state_dict().items()}, text / "model.safetensors")
    return {"audio": str(folder / "audio"), "text": str(text)}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, "tones", 24, 0, captions)
    return folder


@pytest.fixture
def align(towers: dict[str, str], tones: Path, tmp_path: Path) -> Configure:
    """A toy configuration, also written to ``OUT.yaml``."""
    from omegaconf import OmegaConf

    def make(out: str = "run", **changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "objective": "align",
            "out": str(tmp_path / out),
            "data": [str(tones)],
            "seed": 3,
            "steps": 6,
            "batch_size": 8,
            "lr": 3e-3,
            "warmup": 2,
            "precision": "fp32",
            "threads": 1,
            "log_every": 1,
            "align": {**towers, "embed_size": 16, "train": ["audio", "text", "audio_projection", "text_projection"]},
        }
        for key, value in changes.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) and key in values else value
        OmegaConf.save(OmegaConf.create(values), tmp_path / f"{out}.yaml")
        return load_config(tmp_path / f"{out}.yaml")

    return make


@pytest.fixture
def objective(align: Configure) -> AlignObjective:
    torch.manual_seed(0)
    return AlignObjective(align())


def test_a_run_learns_which_words_are_of_which_tones(align: Configure) -> None:
    config = align(steps=60, batch_size=16, log_every=5)
    found = losses_of(config)
    assert np.mean(found[-3:]) < 0.5 * found[0]
    loaded = load_glap(Path(config.out) / "model")
    assert loaded.tokenizer is not None
    rng = np.random.default_rng(9)
    clips = [torch.from_numpy(tone(HZ[word] * rng.uniform(0.95, 1.05), 0.5, rng)) for word in WORDS for _ in range(3)]
    with torch.no_grad():
        audio = loaded.model.embed_audio(clips)
        texts = loaded.model.embed_text(loaded.tokenizer.encode([f"a {word} tone" for word in WORDS]))
        right = (audio @ texts.T).argmax(1) == torch.arange(len(WORDS)).repeat_interleave(3)
        assert right.float().mean() > 0.6  # chance is 1 in 6
        chance = loaded.model.probability(audio @ texts.T)
    own = chance[torch.arange(len(clips)), torch.arange(len(WORDS)).repeat_interleave(3)]
    assert own.mean() > 2 * chance.mean()


def test_a_resumed_run_is_the_uninterrupted_one(align: Configure) -> None:
    whole = align("whole")
    run(whole)
    for stop in (2, 3):
        run(align("parts", stop_after=stop))
    parts = align("parts")
    exported = run(parts)
    assert curve(parts) == curve(whole) and [step for step, *_ in curve(parts)] == [1, 2, 3, 4, 5, 6]
    same = (exported / "model.safetensors").read_bytes(), (Path(whole.out) / "model/model.safetensors").read_bytes()
    assert same[0] == same[1]


def test_only_the_chosen_parts_learn(align: Configure, towers: dict[str, str]) -> None:
    config = align(align={"train": ["text", "audio_projection"]}, steps=3)
    torch.manual_seed(config.seed)
    before = AlignObjective(config)
    groups = before.parameter_groups(0.1)
    learned = {id(parameter) for group in groups for parameter in group["params"]}
    names = {name.split(".")[1] for name, p in before.named_parameters() if id(p) in learned and "." in name}
    assert names == {"text_encoder", "audio_proj"} and {id(before.temperature), id(before.bias)} <= learned
    assert sum(len(group["params"]) for group in groups) == len(learned)
    assert all(p.ndim < 2 for group in groups if not group["weight_decay"] for p in group["params"])
    after = load_glap(run(config)).model.state_dict()
    moved = {name.split(".")[0] for name, value in before.network.state_dict().items() if not value.equal(after[name])}
    assert moved == {"text_encoder", "audio_proj"}


def test_the_network_runs_as_in_use(objective: AlignObjective) -> None:
    objective.train()
    inputs = objective.make_batch(0, 0, 8).inputs
    statistics = objective.network.audio_encoder.init_bn.running_mean.clone()
    assert objective(**inputs).item() == objective(**inputs).item()
    assert objective.training and not any(module.training for module in objective.network.modules())
    assert objective.network.audio_encoder.init_bn.running_mean.equal(statistics)


@pytest.mark.parametrize(
    ("rule", "loss"),
    [("strict", "sigmoid"), ("strict", "softmax"), ("compat", "sigmoid"), ("compat", "softmax"), ("compat", "bce")],
)
def test_what_the_loss_learns_is_kept(align: Configure, rule: str, loss: str) -> None:
    changes: dict[str, Any] = {"align": {"rule": rule, "loss": loss, "temperature": 0.2, "bias": -3.0}, "steps": 4}
    config = align(**changes)
    start = AlignObjective(config).calibration()
    exported = load_glap(run(config)).model
    run(align("first", stop_after=2, **changes))
    run(align("first", **changes))
    assert curve(align("first", **changes)) == curve(config)
    if loss == "softmax":
        assert start is None and exported.logit_scale is None
        return
    assert start == pytest.approx((5.0, -3.0 if loss == "sigmoid" else 0.0))
    assert exported.logit_scale is not None and exported.logit_bias is not None
    assert exported.logit_scale.item() != pytest.approx(5.0, abs=1e-4)
    again = AlignObjective(align("again", align={**changes["align"], "init": str(Path(config.out) / "model")}))
    assert again.calibration() == pytest.approx((exported.logit_scale.item(), exported.logit_bias.item()))


def test_the_text_tower_may_be_the_common_space(align: Configure) -> None:
    changes: dict[str, Any] = {
        "project_text": False,
        "embed_size": 32,
        "hidden_size": 24,
        "train": ["audio_projection"],
    }
    config = align(align=changes, steps=3)
    objective = AlignObjective(config)
    assert [tuple(layer.weight.shape) for layer in objective.network.audio_proj[::2]] == [(24, 32), (32, 24)]
    assert load_glap(run(config)).model.text_proj is None
    changes |= {"init": str(Path(config.out) / "model"), "project_text": True, "train": ["text_projection"]}
    with pytest.raises(ConfigError, match=r"names text_projection, which .*model does not have"):
        AlignObjective(align("again", align=changes))


def test_scenes_that_come_again_are_encoded_once(
    align: Configure, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered changes nothing: a resumed run has forgotten it."""
    changes: dict[str, Any] = {
        "data": [str(shards)],
        "scenes": {"max_s": 1.0},
        "align": {"pairs": "scenes", "scenes": 10, "name_share": 0.5, "train": ["audio_projection", "text_projection"]},
    }
    counts = []
    pool = Glap.pool_audio

    def counted(self: Glap, clips: list[Tensor]) -> Tensor:
        counts.append(len(clips))
        return pool(self, clips)

    monkeypatch.setattr(Glap, "pool_audio", counted)
    whole = align("whole", **changes)
    run(whole)
    assert sum(counts) == 10
    run(align("parts", stop_after=3, **changes))
    parts = align("parts", **changes)
    run(parts)
    assert curve(parts) == curve(whole)


def gradients(objective: AlignObjective, inputs: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    objective.zero_grad()
    loss = objective(**inputs)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in objective.parameters() if p.grad is not None]


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_gradient_caching_changes_nothing(align: Configure, loss: str) -> None:
    objective = AlignObjective(align(align={"loss": loss}))
    inputs = objective.make_batch(0, 0, 8).inputs
    direct = gradients(objective, inputs)
    for objective.config.align.cache in (1, 3, 8):
        objective.config.align.chunk = 2
        cached = gradients(objective, inputs)
        torch.testing.assert_close(cached[0], direct[0], rtol=1e-5, atol=1e-6)
        for one, other in zip(cached[1], direct[1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_cached_parts_meet_the_random_state_they_had() -> None:
    """With dropout: the second pass must drop what the first one dropped."""
    network = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.ReLU(), nn.Linear(64, 3))
    rows, sizes = torch.randn(7, 4), []

    def embed(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return network(part)

    def found(cached: bool) -> list[Tensor]:
        network.zero_grad()
        torch.manual_seed(5)
        parts = embed_cached(embed, rows, 3, rows) if cached else torch.cat([embed(rows[i : i + 3]) for i in (0, 3, 6)])
        torch.rand(100)  # others sample, too, before the second pass
        (parts @ torch.arange(3.0)).square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    for one, other in zip(found(True), found(False), strict=True):
        assert torch.equal(one, other)
    assert sizes == [3, 3, 1, 1, 3, 3, 3, 3, 1]  # forwards, backwards from the last part on, and the plain pass


WORKER = """
import sys
from auricle.train.config import load_config
from auricle.train.loop import run

for path in sys.argv[1:]:
    run(load_config(path))
"""


def test_two_processes_train_as_one(align: Configure, tmp_path: Path, warm_python: str) -> None:
    """All captions of a batch are negatives, wherever they lie, and gradients go back to their owners."""
    changes: dict[str, dict[str, Any]] = {
        "sigmoid": {"chunk": 3, "cache": 2},
        "softmax": {"loss": "softmax", "chunk": 3},
    }
    alone = {name: losses_of(align(f"{name}-alone", steps=4, align=change)) for name, change in changes.items()}
    pair = {name: align(f"{name}-pair", steps=4, align=change) for name, change in changes.items()}
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    launch = [warm_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(worker)]
    environment = {**os.environ, "PYTHON_EXEC": warm_python, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    arguments = [*launch, *(str(tmp_path / f"{name}-pair.yaml") for name in changes)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, losses in alone.items():
        assert [record["loss"] for record in log_of(pair[name])] == pytest.approx(losses, abs=1e-5)


def test_captions_that_are_too_long_are_cut_before_their_end(align: Configure, tmp_path: Path) -> None:
    long = " ".join(["low"] * 30)
    write_tones(tmp_path / "long", "long", 4, 1, lambda n: {"caption": long if n else "a low tone"})
    objective = AlignObjective(align(data=[str(tmp_path / "long")]))
    tokens = objective.make_batch(0, 0, 8).inputs["tokens"]
    assert sorted({len(ids) for ids in tokens}) == [5, MAX_TOKENS] and {ids[-1] for ids in tokens} == {3}
    assert objective.pairs.left_out == {f"caption cut to {MAX_TOKENS} tokens": 3}
    objective = AlignObjective(align(data=[str(tmp_path / "long")], align={"over_long": "skip"}))
    assert {len(ids) for ids in objective.make_batch(0, 0, 8).inputs["tokens"]} == {5}
    assert objective.pairs.left_out == {f"caption over {MAX_TOKENS} tokens": 3}
    objective.export(tmp_path / "model")
    assert read_card(tmp_path / "model").config["left_out"] == {f"caption over {MAX_TOKENS} tokens": 3}


def test_a_batch_is_the_sum_of_its_slices(objective: AlignObjective) -> None:
    whole = objective.make_batch(5, 0, 8)
    parts = [objective.make_batch(5, start, start + 2) for start in range(0, 8, 2)]
    assert whole.weight == 8 and whole.audio_s == pytest.approx(sum(part.audio_s for part in parts))
    assert whole.inputs["tokens"] == [ids for part in parts for ids in part.inputs["tokens"]]
    assert whole.inputs["keys"].equal(torch.cat([part.inputs["keys"] for part in parts]))
    clips = [clip for part in parts for clip in part.inputs["clips"]]
    assert all(map(torch.equal, whole.inputs["clips"], clips))
    other = objective.make_batch(6, 0, 8).inputs["clips"]
    assert not all(one.shape == two.shape and one.equal(two) for one, two in zip(clips, other, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("align.rule=loose", "align.rule must be one of strict, compat, got 'loose'"),
        ("align.loss=bce", "align.loss must be one of sigmoid, softmax, got 'bce'"),
        ("align.pairs=tales", "align.pairs must be one of captions, scenes"),
        ("align.train=[]", "align.train must name some of audio, audio_projection, text, text_projection"),
        ("align.train=[towers]", r"got \['towers'\]"),
        ("align.temperature=0", "temperature > 0"),
        ("align.min_s=20", "0 < min_s <= crop_s, got 0.07, 20.0 and 10.0"),
        ("align.translations=2", "align.translations must be in 0 … 1, got 2.0"),
        ("align.cache=-1", "align.cache must be at least 0, got -1"),
        ("align.project_text=false", "align.train names text_projection, but align.project_text is off"),
    ],
)
def test_settings_out_of_range_are_named(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [change])


def test_what_does_not_fit_is_named(align: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"align needs init, or audio and text .* got audio=None"):
        AlignObjective(align(align={"audio": None}))
    write_tones(tmp_path / "mute", "mute", 2, 1, lambda n: {"kind": "speech"})
    with pytest.raises(DataError, match=r"mute holds no pair to train on; left out: {'no caption': 2}"):
        AlignObjective(align(data=[str(tmp_path / "mute")]))


def test_the_recipe_is_valid() -> None:
    config = load_config(RECIPE / "align.yaml")
    assert config.objective == "align" and config.warmup < config.steps and config.align.pairs == "scenes"
