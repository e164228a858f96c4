"""Checkpoints of encoders: recognised by their tensors, read without running them, written and read again."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from auricle.errors import ConfigError, LayoutMismatch, UnknownModel, UnsafeWeights
from auricle.models.encoders.pieces import Family, Parts, Piece, PieceFrames, PieceNetwork
from auricle.models.frame_model import content_hash
from auricle.weights import catalog, entries
from auricle.weights.encoder_layouts import encoder_families, load_encoder_model, plain_settings, save_encoder

from ..models.encoders.tiny_encoders import NETWORKS, noise, tiny

CUT = Path(__file__).resolve().parents[1] / "fixtures" / "encoders"
CLIP = noise(1.0)

pytestmark = pytest.mark.filterwarnings("ignore:audiomae:UserWarning", "ignore:msm_mae:UserWarning")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def loaded(path: Path, **arguments: Any) -> PieceFrames:
    model = load_encoder_model(path, **arguments)
    assert isinstance(model, PieceFrames)
    return model


def rewrite(name: str, folder: Path, rename: Any = lambda key: key, **extra: Tensor) -> dict[str, Tensor]:
    """Tensors of a cut under other names, its settings beside the place where they will be."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text((CUT / name / "config.json").read_text())
    return {rename(key): tensor for key, tensor in load_file(CUT / name / "model.safetensors").items()} | extra


def same(one: PieceFrames, other: PieceFrames) -> bool:
    return content_hash(one) == content_hash(other) and torch.equal(one.frames([CLIP])[0], other.frames([CLIP])[0])


@pytest.mark.parametrize(
    ("cut", "family"),
    [
        ("beats", "beats"),
        ("eat", "eat"),
        ("data2vec2_audio", "data2vec2"),
        ("best_rq", "best_rq"),
        ("msm_mae", "msm_mae"),
    ],
)
def test_files_are_distinguished_by_their_tensors(cut: str, family: str, tmp_path: Path) -> None:
    tensors = rewrite(cut, tmp_path / "any")
    save_file(tensors, tmp_path / "any" / "any name.safetensors")
    assert loaded(tmp_path / "any" / "any name.safetensors").network.family == family


@pytest.mark.parametrize("name", NETWORKS)
def test_written_and_read_again(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    again = loaded(save_encoder(tmp_path / "made", model))
    assert same(model, again) and again.network.config == model.network.config
    coarse = loaded(tmp_path / "made", dtype="bfloat16")
    assert torch.cosine_similarity(coarse.frames([CLIP])[0].mean(0), model.frames([CLIP])[0].mean(0), dim=0) > 0.99


def test_beats_in_all_its_layouts(tmp_path: Path) -> None:
    plain = loaded(CUT / "beats" / "model.safetensors")
    tuned = rewrite(
        "beats", tmp_path / "tuned", **{"predictor.weight": torch.zeros(5, 64), "predictor.bias": torch.zeros(5)}
    )
    settings = json.loads((CUT / "beats" / "config.json").read_text())
    torch.save({"cfg": settings, "model": tuned, "label_dict": {0: "/m/0"}}, tmp_path / "BEATs.pt")
    assert same(loaded(tmp_path / "BEATs.pt"), plain)
    # OpenBEATs inside an ESPnet model, with the masks' constants; new names of the weight norm.
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    espnet = rewrite(
        "beats",
        tmp_path / "espnet",
        lambda key: "encoder." + re.sub(r"weight_[gv]$", lambda found: names[found[0]], key),
        **{"encoder.raw2fbank_pad.weight": torch.ones(1, 1, 400), "decoder.linear_out.weight": torch.zeros(2, 64)},
    )
    torch.save(espnet, tmp_path / "espnet" / "valid.pth")
    model = loaded(tmp_path / "espnet" / "valid.pth")
    assert model.network.config == replace(plain.network.config, repeat_short=True)
    assert torch.equal(model.frames([CLIP])[0], plain.frames([CLIP])[0])
    assert len(model.frames([CLIP[:200]])[0]) == 1 and model.min_samples == 1
    # Depth of the whole network counts for the residuals, even of a part of it.
    assert model.network.config.residual_gain == 6**0.25


def test_eat_in_both_its_layouts(tmp_path: Path) -> None:
    plain = loaded(CUT / "eat" / "model.safetensors")
    fairseq = rewrite("eat", tmp_path / "fairseq", **{"modality_encoders.IMAGE.decoder.proj.weight": torch.zeros(2, 2)})
    stored: dict[str, Any] = {**fairseq, "_ema": {"blocks.0.norm1.weight": torch.zeros(48)}}
    settings = json.loads((CUT / "eat" / "config.json").read_text())
    torch.save({"args": None, "cfg": settings, "model": stored}, tmp_path / "eat.pt")
    assert same(loaded(tmp_path / "eat.pt"), plain)
    tuned = rewrite("eat", tmp_path / "tuned", lambda key: "model." + key, **{"head.weight": torch.zeros(2, 48)})
    tuned_settings = {"model": {"pretrained_model_args": settings, "num_classes": 2}}
    torch.save({"cfg": tuned_settings, "model": tuned | {"fc_norm.bias": torch.zeros(48)}}, tmp_path / "tuned.pt")
    assert same(loaded(tmp_path / "tuned.pt"), plain)

    def hub(key: str) -> str:
        return "model." + key.removeprefix("modality_encoders.IMAGE.").replace("context_encoder.norm", "pre_norm")

    folder = tmp_path / "hub"
    tensors = rewrite("eat", folder, hub, **{"model.fc_norm.weight": torch.ones(48), "model.head.bias": torch.ones(3)})
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "eat", "num_heads": 3, "max_length": 80}))
    assert same(loaded(folder), plain)
    assert plain.network.positions.shape == (640, 48)  # made anew, since the file has none


def test_data2vec2_fine_tuned_and_with_a_prenet(tmp_path: Path) -> None:
    plain = loaded(CUT / "data2vec2_audio" / "model.safetensors")
    tuned = rewrite(
        "data2vec2_audio",
        tmp_path / "tuned",
        lambda key: "w2v_encoder.w2v_model." + key,
        **{"w2v_encoder.proj.weight": torch.zeros(32, 64)},
    )
    save_file(tuned, tmp_path / "tuned" / "model.safetensors")
    assert same(loaded(tmp_path / "tuned"), plain)
    first = {key: tensor for key, tensor in rewrite("data2vec2_audio", tmp_path / "large").items()}
    prenet = {
        f"modality_encoders.AUDIO.context_encoder.{k}": 0.5 * v for k, v in first.items() if k.startswith("blocks.")
    }
    save_file({**first, **prenet}, tmp_path / "large" / "model.safetensors")
    network: Any = loaded(tmp_path / "large").network
    assert network.config.depth == 2
    halves = network.blocks[0].mlp.fc1.weight, plain.network.blocks[0].mlp.fc1.weight
    assert torch.equal(halves[0], 0.5 * halves[1])
    assert torch.equal(network.blocks[1].mlp.fc1.weight, plain.network.blocks[0].mlp.fc1.weight)


def test_ced_behind_a_prefix_and_atst_fine_tuned(tmp_path: Path) -> None:
    for name, rename in (
        (
            "ced",
            lambda key: key if key.startswith("outputlayer") else "encoder." + key.replace("init_bn.", "init_bn.1."),
        ),
        ("atst", lambda key: "encoder.encoder." + key.replace("patch_embed.", "patch_embed.patch_embed.")),
    ):
        model = tiny(name)
        tensors = {rename(key): tensor for key, tensor in model.network.state_dict().items()}
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"num_heads": 2, "model_type": name}))
        save_file(tensors, folder / "model.safetensors")
        assert same(loaded(folder), model)
    # A convolution instead of a linear layer has the same weights.
    own = {f"model.teacher.encoder.{key}": tensor for key, tensor in tiny("atst").network.state_dict().items()}
    bias, weight = (own.pop(f"model.teacher.encoder.patch_embed.{key}") for key in ("bias", "weight"))
    own |= {"model.teacher.encoder.patch_embed.proj.weight": weight.view(32, 1, 64, 4)}
    own |= {"model.teacher.encoder.patch_embed.proj.bias": bias, "model.teacher.encoder.mask_embed": torch.zeros(1)}
    own |= {"model.student.encoder.norm_frame.weight": torch.zeros(32)}
    (tmp_path / "conv").mkdir()
    (tmp_path / "conv" / "config.json").write_text('{"num_heads": 2}')
    torch.save({"state_dict": own, "hyper_parameters": {"arch": "x"}}, tmp_path / "conv" / "atst.ckpt")
    assert same(loaded(tmp_path / "conv" / "atst.ckpt"), tiny("atst"))


def test_speechbrain_folders_hold_several_files(tmp_path: Path) -> None:
    tensors = rewrite(
        "best_rq", tmp_path / "save", **{"1.transformer.positional_encoding_decoder.pe": torch.zeros(1, 5, 64)}
    )
    torch.save(tensors, tmp_path / "save" / "model.ckpt")
    torch.save({"P": torch.zeros(2, 2)}, tmp_path / "save" / "quantizer.ckpt")
    assert same(loaded(tmp_path / "save"), loaded(CUT / "best_rq" / "model.safetensors"))


def test_foreign_settings_in_pickles_are_read_and_never_run(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    settings = json.loads((CUT / "eat" / "config.json").read_text())
    tensors = rewrite("eat", tmp_path / "x")
    for name, cfg in (("omegaconf", OmegaConf.create(settings)), ("namespace", argparse.Namespace(**settings))):
        torch.save({"cfg": cfg, "model": tensors, "args": argparse.Namespace(lr=0.1)}, tmp_path / f"{name}.pt")
        assert same(loaded(tmp_path / f"{name}.pt"), loaded(CUT / "eat" / "model.safetensors"))
    torch.save({"cfg": settings, "model": tensors, "run": re.compile}, tmp_path / "code.pt")
    with pytest.raises(UnsafeWeights, match=r"needs code \(re\.compile\)"):
        loaded(tmp_path / "code.pt")


def test_settings_are_words_numbers_and_containers() -> None:
    assert plain_settings({"a": [1, 2.5, ("x", None)], 3: True}) == {"a": [1, 2.5, ["x", None]], "3": True}
    assert plain_settings({"path": Path("x")}) == {"path": "PosixPath"}


def test_an_enumeration_of_settings_becomes_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("examples.data2vec.data.modality")
    kind = Enum("Modality", {"IMAGE": "image"}, module=module.__name__)
    module.Modality = kind  # type: ignore[attr-defined]
    for parent in ("examples", "examples.data2vec", "examples.data2vec.data"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings = json.loads((CUT / "eat" / "config.json").read_text())
    settings["model"]["modalities"]["image"]["type"] = kind["IMAGE"]
    torch.save({"cfg": settings, "model": rewrite("eat", tmp_path / "x")}, tmp_path / "eat.pt")
    monkeypatch.delitem(sys.modules, module.__name__)
    assert loaded(tmp_path / "eat.pt").network.config.max_length == 80


def test_what_does_not_fit_is_reported(tmp_path: Path) -> None:
    tensors = rewrite("eat", tmp_path / "bad")
    file = tmp_path / "bad" / "model.safetensors"
    save_file({k: v for k, v in tensors.items() if k != "blocks.0.mlp.fc1.weight"}, file)
    with pytest.raises(LayoutMismatch, match=r"blocks\.0\.mlp\.fc1\.weight is missing from these weights of eat"):
        loaded(file)
    save_file({**tensors, "blocks.0.extra.weight": torch.zeros(1)}, file)
    with pytest.raises(LayoutMismatch, match=r"1 unknown \(blocks\.0\.extra\.weight\)"):
        loaded(file)
    save_file({**tensors, "blocks.0.norm1.weight": torch.zeros(1)}, file)
    with pytest.raises(LayoutMismatch, match=r"norm1\.weight is \(1,\), expected \(48,\)"):
        loaded(file)
    save_file(tensors, file)
    (tmp_path / "bad" / "config.json").unlink()
    with pytest.raises(ConfigError, match="48 wide and do not show the number of attention heads"):
        loaded(file)
    beats = rewrite("beats", tmp_path / "beats")
    save_file(beats, tmp_path / "beats" / "model.safetensors")
    for settings, message in (({}, r"\(cfg\) is absent"), ({"activation_fn": "glu"}, "activation_fn is 'glu'")):
        known = {"encoder_attention_heads": 4, "deep_norm": True} if settings else {}
        (tmp_path / "beats" / "config.json").write_text(json.dumps({**known, **settings}))
        with pytest.raises((ConfigError, LayoutMismatch), match=message):
            loaded(tmp_path / "beats")
    (tmp_path / "beats" / "config.json").write_text('{"auricle_encoder": {"family": "zebra", "config": {}}}')
    with pytest.raises(LayoutMismatch, match="names the family 'zebra'"):
        loaded(tmp_path / "beats")
    (tmp_path / "beats" / "config.json").write_text('{"auricle_encoder": {"family": "beats", "config": {"x": 1}}}')
    with pytest.raises(ConfigError, match=r"config\.json is not that of beats"):
        loaded(tmp_path / "beats")


def test_pooling_is_of_encoders_with_patches() -> None:
    with pytest.raises(ConfigError, match="has no frequency patches to pool"):
        load_encoder_model(CUT.parent / "dasheng" / "weights.pt", pool="concat")


@pytest.mark.filterwarnings("default")
def test_licences_are_stated_at_first_use(tmp_path: Path) -> None:
    for name, words in (("audiomae", "CC-BY-NC-4.0"), ("msm_mae", "NTT's evaluation licence")):
        save_encoder(tmp_path / name, tiny(name))
        with pytest.warns(UserWarning, match=f"{name}: its weights are .*{words}.*not for commercial use"):
            loaded(tmp_path / name)
    with pytest.raises(UnknownModel, match=r"Note that its weights are CC-BY-NC-4\.0.*facebookresearch/AudioMAE"):
        load_encoder_model("audiomae")


def test_what_cannot_be_fetched_says_who_offers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for entry in entries():
        assert not (entry.where and entry.repo) and not (entry.unavailable and entry.family)
        if entry.where:
            with pytest.raises(UnknownModel, match=re.escape(entry.where)):
                catalog.resolve(entry.name)
            assert not catalog.is_ready(entry)
    with pytest.raises(UnknownModel, match="usad is not available: its network is only published as code"):
        catalog.resolve("usad")
    save_encoder(tmp_path / "beats-iter3", tiny("beats"))  # a folder of that name is meant literally
    assert loaded(Path("beats-iter3")).network.family == "beats"


@dataclass(frozen=True, kw_only=True, slots=True)
class TenthConfig:
    width: int = 4


class Tenth(PieceNetwork):
    """Loudness of tenths of seconds: a family in one file."""

    family = "tenth"
    hop_samples, min_samples, window_samples = 1_600, 1_600, None

    def __init__(self, config: TenthConfig) -> None:
        super().__init__()
        self.config, self.width, self.blocks = config, config.width, nn.ModuleList()
        self.loudness = nn.Linear(1, config.width)

    def pieces(self, waveforms: Any) -> list[list[Piece]]:
        rows = [waveform.unfold(0, 1_600, 1_600).std(1, keepdim=True) for waveform in waveforms]
        return [[Piece(row, len(row))] for row in rows]

    def embed(self, piece: Piece) -> Tensor:
        return self.loudness(piece.features)


def test_a_tenth_family_is_one_file_and_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("auricle.models.encoders.tenth")
    module.FAMILY = Family(  # type: ignore[attr-defined]
        "tenth",
        Tenth,
        TenthConfig,
        lambda tensors: "loudness.weight" in tensors,
        lambda tensors, settings, source: Parts(TenthConfig(width=len(tensors["loudness.bias"])), dict(tensors)),
    )
    monkeypatch.setitem(sys.modules, "auricle.models.encoders.tenth", module)
    entry = catalog.CatalogEntry(
        name="tenth", kind="encoder", summary="x", parameters=8, family="tenth", where="nobody"
    )
    monkeypatch.setattr(catalog, "ENTRIES", (*catalog.ENTRIES, entry))
    assert list(encoder_families())[-1] == "tenth"
    torch.save(Tenth(TenthConfig()).state_dict(), tmp_path / "tenth.pt")
    model = loaded(tmp_path / "tenth.pt")
    assert model.frames([CLIP])[0].shape == (10, 4) and model.hop_size_in_ms == 100
    assert same(loaded(save_encoder(tmp_path / "made", model)), model)
