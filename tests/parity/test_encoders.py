"""Each encoder equals its authors' code, alone and in batches.

Beside the tests lies a cut: one second of sound and the first block of each network, all of MSM-MAE's, nothing behind
the front end of AudioMAE and little of ATST's and CED's. The whole set, every case and every stage of nine models, is
in the folder ``encoders`` of `AURICLE_PARITY`.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from auricle.audio.fbank import BEATS_FBANK, EAT_FBANK, kaldi_fbank
from auricle.models.encoders.audiomae import reference_positions
from auricle.models.encoders.best_rq import band_decibels, relative_positions, sentence_normalised
from auricle.models.encoders.msm_mae import msm_log_mel, normalised
from auricle.models.encoders.pieces import PieceFrames, run_pieces, to_patches
from auricle.weights.encoder_layouts import load_encoder_model, read_encoder

CUT = Path(__file__).resolve().parents[1] / "fixtures" / "encoders"
WHOLE = Path(os.environ.get("AURICLE_PARITY") or ".") / "encoders"
whole = [
    pytest.mark.shared,
    pytest.mark.skipif(not os.environ.get("AURICLE_PARITY"), reason="AURICLE_PARITY names no folder"),
]
TOLERANCE = 1e-4  # absolute, of frames whose deviation is about 1; normalised filter banks and logits too
LOG_MEL = 1e-3  # absolute, of values before normalisation
CASES = {"0.5s": (8_000, 3_000), "1s": (16_000, 0), "5s": (80_000, 5_000), "10s": (160_000, 1_600)}
CASES["12s"] = (192_000, 7_000)
HEADS = {"audiomae": 4, "ced": 4, "best_rq": 4, "msm_mae": 3}  # what these checkpoints do not tell

pytestmark = pytest.mark.filterwarnings("ignore:audiomae:UserWarning", "ignore:msm_mae:UserWarning")


class Reference:
    """Golden tensors of one model, and the ways to its network."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.name, self._scratch = folder, folder.name, scratch
        file = folder / "golden.safetensors"
        self.golden = load_file(file)
        with safe_open(file, framework="pt") as handle:
            self.strides: dict[str, int] = json.loads((handle.metadata() or {}).get("strides", "{}"))

    def load(self, file: str, **settings: Any) -> PieceFrames:
        """The encoder of a checkpoint, its configuration changed."""
        path = self.folder / file
        if self.name in HEADS and not (self.folder / "config.json").is_file():
            path = self._scratch / file
            path.symlink_to(self.folder / file)
            (self._scratch / "config.json").write_text(json.dumps({"num_heads": HEADS[self.name]}))
        model = load_encoder_model(path)
        assert isinstance(model, PieceFrames)
        return changed(model, **settings)

    def check(self, name: str, ours: Tensor, rows: Any = slice(None), tolerance: float = TOLERANCE) -> None:
        """One tensor of ours against the rows of the first dimension of a golden one, without its batch dimension."""
        expected = self.golden[name] if ours.ndim == self.golden[name].ndim else self.golden[name][0]
        if stride := self.strides.get(name):
            ours = ours[..., ::stride]
        self.compare(name, ours, expected[rows], tolerance)

    def compare(self, name: str, ours: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
        assert ours.shape == expected.shape, f"{name}: {tuple(ours.shape)}, golden {tuple(expected.shape)}"
        worst = (ours - expected).abs().max().item()
        if path := os.environ.get("AURICLE_PARITY_LOG"):
            with open(path, "a", encoding="utf-8") as log:
                log.write(json.dumps({"tensor": f"encoders/{self.name}/{name}", "error": worst}) + "\n")
        assert worst <= tolerance, f"{name}: off by {worst:.2e}, allowed {tolerance:.0e}"


def changed(model: PieceFrames, pool: Any = None, **settings: Any) -> PieceFrames:
    """The same network under another configuration."""
    network = type(model.network)(replace(model.network.config, **settings))
    network.load_state_dict(model.network.state_dict())
    return PieceFrames(network.eval(), pool=pool)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def cut(request: pytest.FixtureRequest, tmp_path: Path) -> Reference:
    return Reference(CUT / request.param, tmp_path)


@pytest.fixture
def reference(request: pytest.FixtureRequest, tmp_path: Path) -> Reference:
    return Reference(WHOLE / request.param, tmp_path)


def of(name: str) -> pytest.MarkDecorator:
    """The cut of a model."""
    return pytest.mark.parametrize("cut", [name], indirect=True)


def all_of(*names: str) -> pytest.MarkDecorator:
    """The whole set of models."""
    return pytest.mark.parametrize("reference", [pytest.param(name, marks=whole) for name in names], indirect=True)


def second() -> Tensor:
    """The case of one second, as the cut has it."""
    return load_file(CUT / "fbank.safetensors")["wave"][:16_000]


def base() -> Tensor:
    return load_file(WHOLE / "waves.safetensors")["base"]


def clip(case: str) -> Tensor:
    length, start = CASES[case]
    return base()[start : start + length]


def pair() -> list[Tensor]:
    """The two clips of the batch, 2 and 5 s."""
    return [base()[11_111:43_111], base()[60_000:140_000]]


def only(model: PieceFrames, waveform: Tensor, piece: int = 0) -> Tensor:
    """All tokens of one piece of a clip."""
    return model.tokens([waveform])[0][piece]


# --- the cut ---------------------------------------------------------------------------------------------------------


@of("beats")
def test_beats_first_block(cut: Reference) -> None:
    model = cut.load("model.safetensors")
    cut.check("stage.rel_pos_bias", model.network.relative_bias(48))  # type: ignore[operator]
    piece = model.network.pieces([second()])[0][0]
    cut.check("stage.layer0", model.network.embed(piece))
    cut.check("stage.layer1", only(model, second()))


@of("eat")
def test_eat_first_block(cut: Reference) -> None:
    model = cut.load("model.safetensors", fill_up=False)
    cut.check("stage.after_pos_cls_norm", model.network.embed(model.network.pieces([second()])[0][0]))
    cut.check("stage.block0", only(model, second()))


@of("data2vec2_audio")
def test_data2vec2_first_block(cut: Reference) -> None:
    model = cut.load("model.safetensors")
    cut.check("stage.alibi_bias", model.network.distance_bias(8))  # type: ignore[operator]
    cut.check("stage.context_encoder", model.network.embed(model.network.pieces([second()])[0][0]))
    cut.check("stage.block0", only(model, second()))


@of("best_rq")
def test_best_rq_first_block(cut: Reference) -> None:
    model = cut.load("model.safetensors")
    cut.compare("1s.fbank", sentence_normalised(band_decibels(second()))[::4], cut.golden["1s.fbank"][0])
    cut.compare("stage.pos_emb", relative_positions(26, 64)[:, :8], cut.golden["stage.pos_emb"][0])
    pieces = model.network.pieces([second()])[0]
    cut.check("stage.layer0", run_pieces(model.network, pieces, [0])[0][0])
    codes = model.network.targets(second(), cut.golden["P"], cut.golden["CB"])  # type: ignore[operator]
    assert torch.equal(codes, cut.golden["1s.targets"][0])


@of("msm_mae")
def test_msm_mae(cut: Reference) -> None:
    cut.check("1s.logmel", msm_log_mel(second()), tolerance=LOG_MEL)
    cut.check("1s.encoder", cut.load("model.safetensors").frames([second()])[0])


@of("atst_frame")
def test_atst_patches(cut: Reference) -> None:
    model = cut_network(cut)
    cut.check("1s.fbank", model.features(second()).t())
    patches = model.embed(model.pieces([second()])[0][0]) - model.pos_embed[0, 1:26]
    cut.check("stage.patch_embed", patches)


@of("ced")
def test_ced_patches(cut: Reference) -> None:
    model = cut_network(cut)
    cut.check("1s.fbank", model.front_end(second())[0], tolerance=LOG_MEL)
    tokens = model.embed(model.pieces([second()])[0][0])
    places = model.time_pos_embed[0, :, :, :6] + model.freq_pos_embed[0]
    cut.check("stage.patch_embed_1s", tokens.t().unflatten(1, (4, 6)) - places)


@of("audiomae")
def test_audiomae_positions(cut: Reference) -> None:
    cut.check("pos_embed_from_scratch", reference_positions(64)[:33])


def cut_network(cut: Reference) -> Any:
    """A network without blocks, read as the authors wrote what is there."""
    from auricle.models.encoders import atst, ced

    tensors = load_file(cut.folder / "model.safetensors")
    if cut.name == "atst_frame":
        network: Any = atst.Atst(atst.AtstConfig(embed_dim=64, num_heads=1, depth=0))
        own = {key.removeprefix("model.teacher.encoder."): tensor for key, tensor in tensors.items()}
        own = {key.replace("patch_embed.patch_embed.", "patch_embed."): tensor for key, tensor in own.items()}
        network.pos_embed.data[:, :26] = own.pop("pos_embed")
    else:
        network = ced.Ced(ced.CedConfig(embed_dim=64, num_heads=4, depth=0))
        own = {key.replace("init_bn.1.", "init_bn."): tensor for key, tensor in tensors.items()}
    assert network.load_state_dict(own, strict=False).missing_keys != list(own)
    return network.eval()


# --- the whole set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@all_of("beats", "openbeats", "eat", "audiomae")
def test_filter_banks(reference: Reference, case: str) -> None:
    mean, std = {"eat": (-4.268, 4.569), "audiomae": (-4.2677393, 4.5689974)}.get(reference.name, (15.41663, 6.55582))
    spec = BEATS_FBANK if "beats" in reference.name else EAT_FBANK
    fbank = (kaldi_fbank(clip(case), spec) - mean) / (2 * std)
    check_features(reference, case, fbank)


def check_features(reference: Reference, case: str, features: Tensor, tolerance: float = TOLERANCE) -> None:
    """Features (T, M), of which the set keeps all frames, every fourth one, or none."""
    for name, stride in ((f"{case}.fbank", 1), (f"{case}.fbank_every4", 4)):
        if name not in reference.golden:
            continue
        golden, ours = reference.golden[name][0], features
        if reference.name in ("ced", "atst_frame", "msm_mae"):
            golden = golden.t()
        # 0.5 s of some models are cut to whole patches.
        reference.compare(name, ours[::stride][: len(golden)], golden, tolerance)


@pytest.mark.parametrize("case", CASES)
@all_of("beats", "openbeats")
def test_beats(reference: Reference, case: str) -> None:
    model = reference.load("model.pt", pool="none", window_frames=None)
    reference.check(f"{case}.encoder", model.frames([clip(case)])[0])


@all_of("beats")
def test_beats_batches(reference: Reference) -> None:
    golden = reference.golden
    model = reference.load("model.pt", pool="none", window_frames=None)
    short, long = model.frames(pair())
    assert (~golden["batch2.exact_padding_mask"]).sum(1).tolist() == [len(short), len(long)]
    reference.compare("exact mask, item 0", short, golden["batch2.encoder_exact_mask"][0, : len(short)])
    reference.compare("exact mask, item 1", long, golden["batch2.encoder_exact_mask"][1])
    reference.check("batch2.item0_alone", short)
    reference.check("batch2.encoder_nomask", model.frames([F.pad(pair()[0], (0, 48_000))])[0])
    # The authors' own mask keeps four patches too many.
    compat = changed(model, compat=True)
    keys = [pieces[0].keys for pieces in compat.network.pieces(pair())]
    assert (~golden["batch2.patch_padding_mask"]).sum(1).tolist() == keys
    (short,), (long,) = compat.tokens(pair())
    reference.compare("their mask, item 0", short[:100], golden["batch2.encoder_ref_mask"][0, :100])
    reference.compare("their mask, item 1", long, golden["batch2.encoder_ref_mask"][1])


@all_of("beats")
def test_beats_stages(reference: Reference) -> None:
    model = reference.load("model.pt")
    network: Any = model.network
    pieces = network.pieces([clip("1s")])[0]
    patches = network.patches(pieces[0].features)
    reference.check("stage.patch_embedding", patches)
    reference.check("stage.post_extract_proj", network.post_extract_proj(network.layer_norm(patches)))
    reference.check("stage.after_pos_conv_ln", network.embed(pieces[0]))
    reference.check("stage.layer0", network.embed(pieces[0]))
    reference.check("stage.rel_pos_bias", network.relative_bias(48))
    for index, state in enumerate(run_pieces(network, pieces, [0, 1, 2])[0]):
        reference.check(f"stage.layer{index + 1}", state)


@all_of("openbeats")
def test_openbeats_batches_and_crumbs(reference: Reference) -> None:
    model = reference.load("model.pt", pool="none")
    short, long = model.frames(pair())
    assert reference.golden["batch2.out_lens"].tolist() == [len(short), len(long)]
    reference.compare("masked, item 0", short, reference.golden["batch2.encoder_masked"][0, : len(short)])
    reference.compare("masked, item 1", long, reference.golden["batch2.encoder_masked"][1])
    reference.check("batch2.item0_alone", short)
    reference.check("tiny_1000.encoder", model.frames([base()[:1_000]])[0])


@pytest.mark.parametrize("layout", ["model.pt", "hf"])
@pytest.mark.parametrize("case", CASES)
@all_of("eat")
def test_eat(reference: Reference, case: str, layout: str) -> None:
    model = reference.load(layout)
    for name in {f"{case}.encoder_1024"} & reference.golden.keys():
        reference.check(name, only(model, clip(case)))
    model = changed(model, fill_up=False, window_frames=1_280)
    reference.check(f"{case}.encoder_var", only(model, clip(case)))


@pytest.mark.parametrize("layout", ["model.pt", "hf"])
@all_of("eat")
def test_eat_batches_and_stages(reference: Reference, layout: str) -> None:
    model = reference.load(layout)
    for index, (tokens,) in enumerate(model.tokens(pair())):
        reference.compare("filled up", tokens[::4], reference.golden["batch2.encoder_1024_every4"][index])
    model = changed(model, fill_up=False)
    (short,), (long,) = model.tokens(pair())
    assert (~reference.golden["batch2.var_padding_mask"]).sum(1).tolist() == [len(short) - 1, len(long) - 1]
    reference.compare("masked, item 0", short, reference.golden["batch2.encoder_var_masked"][0, : len(short)])
    reference.compare("masked, item 1", long, reference.golden["batch2.encoder_var_masked"][1])
    pieces = model.network.pieces([clip("1s")])[0]
    network: Any = model.network
    reference.check("stage.patch_embed", network.patch_embed(to_patches(pieces[0].features)))
    reference.check("stage.after_pos_cls_norm", network.embed(pieces[0]))
    for index, state in enumerate(run_pieces(model.network, pieces, [0, 1, 2])[0]):
        reference.check(f"stage.block{index}", state)


@pytest.mark.parametrize("case", CASES)
@all_of("audiomae")
def test_audiomae(reference: Reference, case: str) -> None:
    pieces = reference.load("model.pth").tokens([clip(case)])[0]
    for name, stride in ((f"{case}.encoder", 1), (f"{case}.encoder_every4", 4)):
        if name in reference.golden:
            reference.check(name, pieces[0][::stride])
    if case == "12s":
        reference.check("12s.encoder_chunk1_first97", pieces[1][:97])


@all_of("audiomae")
def test_audiomae_heads_and_batches(reference: Reference) -> None:
    model = reference.load("model.pth")
    network: Any = model.network
    for index, (tokens,) in enumerate(model.tokens(pair())):
        reference.compare("batch", tokens[::4], reference.golden["batch2.encoder_every4"][index])
    patches = network.patch_embed(to_patches(network.pieces([clip("1s")])[0][0].features))
    reference.compare("stage.patch_embed", patches[:64], reference.golden["stage.patch_embed"][0])
    reference.check("10s.encoder_contextual_every4", network.contextual(clip("10s"), 0)[0][::4])
    network = reference.load("model_finetuned.pth").network
    reference.check("10s.finetuned_pooled", network.pooled([clip("10s")]))
    reference.check("10s.finetuned_logits", network.logits([clip("10s")]))
    reference.check("10s.finetuned_tokens_prenorm_every4", only(PieceFrames(network), clip("10s"))[::4])


@pytest.mark.parametrize("case", CASES)
@all_of("ced")
def test_ced(reference: Reference, case: str) -> None:
    model = reference.load("model.pt")
    network: Any = model.network
    check_features(reference, case, network.front_end(clip(case))[0].t(), LOG_MEL)
    reference.check(f"{case}.probs", network.probabilities([clip(case)]))
    if case != "12s":
        reference.check(f"{case}.encoder", only(model, clip(case)))
        return
    reference.check("12s.encoder_chunk0", only(model, clip(case)))
    theirs = changed(model, chunk_frames=1_012)
    reference.check("12s.encoder_chunk1_unpadded", only(theirs, clip(case), 1))
    reference.check("12s.encoder_chunk1_padded", only(changed(theirs, compat=True), clip(case), 1))


@all_of("ced")
def test_ced_batches(reference: Reference) -> None:
    model = reference.load("model.pt")
    reference.check("batch2.item0_alone", model.tokens(pair())[0][0])
    network: Any = model.network
    tokens = network.embed(network.pieces([clip("1s")])[0][0])
    places = network.time_pos_embed[0, :, :, :6] + network.freq_pos_embed[0]
    reference.check("stage.patch_embed_1s", tokens.t().unflatten(1, (4, 6)) - places)
    padded = changed(model, compat=True).tokens(pair())[0][0]
    assert 1.0 < (padded.unflatten(0, (4, -1))[:, :12] - model.tokens(pair())[0][0].unflatten(0, (4, -1))).abs().max()


@pytest.mark.parametrize("case", CASES)
@all_of("atst_frame")
def test_atst(reference: Reference, case: str) -> None:
    model = reference.load("model.ckpt", chunk_frames=1_001)
    network: Any = model.network
    check_features(reference, case, network.features(clip(case)))
    frames = model.frames([clip(case)])[0]
    reference.check(f"{case}.encoder", frames)
    if f"{case}.encoder_all_blocks" in reference.golden:
        reference.check(f"{case}.encoder_all_blocks", network.all_blocks(clip(case)))
    if case == "12s":
        times = torch.arange(len(frames)) * model.hop_size_in_ms
        assert torch.equal(times, reference.golden["12s.timestamps_ms"][0])
    if case != "12s":  # a piece of the default is as long as theirs without the frame that they lose
        reference.check(f"{case}.encoder", changed(model, chunk_frames=1_000).frames([clip(case)])[0])


@all_of("atst_frame")
def test_atst_batches_and_stages(reference: Reference) -> None:
    model = reference.load("model.ckpt")
    network: Any = model.network
    short, long = model.frames(pair())
    reference.compare("masked, item 0", short, reference.golden["batch2.encoder_masked"][0, : len(short)])
    reference.compare("masked, item 1", long, reference.golden["batch2.encoder_masked"][1])
    reference.check("batch2.item0_alone", short)
    reference.check("1s.scene_all_blocks", network.all_blocks(clip("1s")).mean(0)[None])
    pieces = network.pieces([clip("1s")])[0]
    reference.check("stage.patch_embed", network.embed(pieces[0]) - network.pos_embed[0, 1:26])
    for index, state in enumerate(run_pieces(network, pieces, [0, 1, 2])[0]):
        reference.check(f"stage.block{index}", state)


@pytest.mark.parametrize("case", CASES)
@all_of("best_rq")
def test_best_rq(reference: Reference, case: str) -> None:
    decibels = band_decibels(clip(case))
    if f"{case}.fbank_db" in reference.golden:
        reference.check(f"{case}.fbank_db", decibels, tolerance=LOG_MEL)
    check_features(reference, case, sentence_normalised(decibels))
    reference.check(f"{case}.encoder", reference.load("model.ckpt").frames([clip(case)])[0])


@all_of("best_rq")
def test_best_rq_batches_and_stages(reference: Reference) -> None:
    model = reference.load("model.ckpt")
    network: Any = model.network
    reference.check("batch2.item0_alone", model.frames(pair())[0])
    short, long = changed(model, compat=True).frames(pair())
    assert len(short) == 50
    reference.compare("their mask, item 0", short, reference.golden["batch2.encoder_ref_mask"][0, :50])
    reference.compare("their mask, item 1", long, reference.golden["batch2.encoder_ref_mask"][1])
    pieces = network.pieces([clip("1s")])[0]
    reference.compare("stage.cnn", network.reduce(pieces[0].features), reference.golden["stage.cnn"][0].flatten(1))
    reference.check("stage.proj", network.embed(pieces[0]))
    reference.compare("stage.pos_emb", relative_positions(26, 64)[:, :8], reference.golden["stage.pos_emb"][0])
    for index, state in enumerate(run_pieces(network, pieces, [0, 1])[0]):
        reference.check(f"stage.layer{index}", state)
    quantizer = torch.load(reference.folder / "quantizer.ckpt", weights_only=True)
    codes = network.targets(clip("1s"), quantizer["P"], quantizer["CB"])
    assert torch.equal(codes, reference.golden["1s.targets"][0])


@pytest.mark.parametrize("case", CASES)
@all_of("data2vec2_audio")
def test_data2vec2(reference: Reference, case: str) -> None:
    reference.check(f"{case}.encoder", reference.load("model.pt").frames([clip(case)])[0])


@all_of("data2vec2_audio")
def test_data2vec2_batches_and_stages(reference: Reference) -> None:
    model = reference.load("model.pt")
    network: Any = model.network
    short, long = model.frames(pair())
    assert (~reference.golden["batch2.frame_padding_mask"]).sum(1).tolist() == [len(short), len(long)]
    reference.compare("exact, item 0", short, reference.golden["batch2.encoder_exact"][0, : len(short)])
    reference.compare("exact, item 1", long, reference.golden["batch2.encoder_exact"][1])
    reference.check("batch2.item0_alone", short)
    short, long = changed(model, compat=True).frames(pair())
    reference.compare("their mask, item 0", short, reference.golden["batch2.encoder_masked"][0, : len(short)])
    reference.compare("their mask, item 1", long, reference.golden["batch2.encoder_masked"][1])
    pieces = network.pieces([clip("1s")])[0]
    features = network.features(pieces[0])
    reference.check("stage.conv_features", features)
    projected = network.feature_proj(network.feature_norm(features))
    reference.check("stage.projected", projected)
    reference.check("stage.pos", network.positions(projected))
    reference.check("stage.alibi_bias", network.distance_bias(49)[:, :8, :8])
    reference.check("stage.context_encoder", network.embed(pieces[0]))
    for index, state in enumerate(run_pieces(network, pieces, [0, 1])[0]):
        reference.check(f"stage.block{index}", state)


@pytest.mark.parametrize("case", CASES)
@all_of("msm_mae")
def test_msm_mae_whole(reference: Reference, case: str) -> None:
    mel = msm_log_mel(clip(case))
    if f"{case}.logmel" in reference.golden:
        reference.check(f"{case}.logmel", mel, tolerance=LOG_MEL)
    check_features(reference, case, normalised(mel).t())
    reference.check(f"{case}.encoder", reference.load("checkpoint.pth").frames([clip(case)])[0])


@all_of("msm_mae")
def test_msm_mae_batches(reference: Reference) -> None:
    model = reference.load("checkpoint.pth")
    reference.check("batch2.item1_alone", model.frames(pair())[1])
    for index, frames in enumerate(changed(model, compat=True).frames(pair())):
        reference.compare("whole batch", frames, reference.golden["batch2.encoder_ref"][index, : len(frames)])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("beats", "model.pt"),
        ("openbeats", "model.pt"),
        ("eat", "model.pt"),
        ("eat", "hf"),
        ("audiomae", "model.pth"),
        ("audiomae", "model_finetuned.pth"),
        ("ced", "model.pt"),
        ("atst_frame", "model.ckpt"),
        ("data2vec2_audio", "model.pt"),
        ("msm_mae", "checkpoint.pth"),
        ("best_rq", "model.ckpt"),
    ],
)
@pytest.mark.shared
@pytest.mark.skipif(not os.environ.get("AURICLE_PARITY"), reason="AURICLE_PARITY names no folder")
def test_official_layouts_are_distinguished(name: str, file: str, tmp_path: Path) -> None:
    model = Reference(WHOLE / name, tmp_path).load(file)
    expected = {"openbeats": "beats", "atst_frame": "atst", "data2vec2_audio": "data2vec2"}.get(name, name)
    assert model.network.family == expected
    found = read_encoder(WHOLE / name / file) if name not in HEADS else None
    assert found is None or found[0].name == expected
