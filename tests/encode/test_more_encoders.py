"""BEATs and its kin behind `load_encoder`: the contract of every family, names, lengths, receipts."""

import warnings
from pathlib import Path

import pytest
import torch

from auricle import load_encoder
from auricle.encode.contract import CHECKS, check_encoder
from auricle.encode.encoder import Encoder
from auricle.encode.names import Part, parse_name
from auricle.errors import ConfigError
from auricle.models.encoders.pieces import PieceFrames
from auricle.weights.encoder_layouts import save_encoder

from ..models.encoders.tiny_encoders import NETWORKS, noise, tiny

CUT = Path(__file__).resolve().parents[1] / "fixtures" / "encoders"
# The cut of each family as its authors store it; small random networks of those that are cut away.
CUTS = {name: CUT / name / "model.safetensors" for name in ("beats", "eat", "data2vec2_audio", "best_rq", "msm_mae")}
RANDOM = ("openbeats", "audiomae", "ced", "atst")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    folder = tmp_path_factory.mktemp("encoders")
    paths = {**CUTS, **{name: save_encoder(folder / name, tiny(name)) for name in RANDOM}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of licences
        return {name: load_encoder(str(path)) for name, path in paths.items()}


@pytest.mark.parametrize("name", [*CUTS, *RANDOM])
def test_every_family_keeps_the_contract(encoders: dict[str, Encoder], name: str) -> None:
    findings = check_encoder(encoders[name])
    assert [finding.check for finding in findings] == list(CHECKS)
    assert [finding for finding in findings if not finding.passed] == []


@pytest.mark.parametrize("name", [*CUTS, *RANDOM])
def test_any_length(encoders: dict[str, Encoder], name: str) -> None:
    encoder = encoders[name]
    seconds = (0.1, 0.5, 10.3, 60.0)
    frames, lengths = encoder.encode([noise(each).numpy() for each in seconds])
    assert torch.isfinite(frames).all()
    for each, length in zip(seconds, lengths.tolist(), strict=True):
        assert abs(length - 1000 * each / encoder.hop_size_in_ms) <= 1.5


def test_receipts_state_what_was_read(encoders: dict[str, Encoder]) -> None:
    (result,) = encoders["beats"].embed_many([noise(25.0).numpy()], frames=True)
    assert not isinstance(result, Exception)
    receipt = result.receipt
    assert receipt.complete and receipt.audio_tokens == len(result.values) == 156
    assert [(span.start_s, span.stop_s) for span in receipt.read] == [(0.0, 24.96)]
    assert [(span.start_s, span.stop_s) for span in receipt.dropped] == [(24.96, 25.0)]
    model = encoders["beats"].model
    assert isinstance(model, PieceFrames) and model.window_s == 10.24


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("beats.pt", Part("beats.pt")),
        ("beats.pt@concat", Part("beats.pt", (), "concat")),
        ("beats.pt@3", Part("beats.pt", (3,))),
        ("beats.pt@3,6@none", Part("beats.pt", (3, 6), "none")),
        ("me@home.pt@mean", Part("me@home.pt", (), "mean")),
        ("beats.pt@sum", Part("beats.pt@sum")),
    ],
)
def test_names_with_pooling(text: str, part: Part) -> None:
    assert parse_name(text) == [part]


def test_pooling_and_layers_by_name() -> None:
    path = str(CUTS["msm_mae"])
    with pytest.warns(UserWarning, match="msm_mae"):
        encoders = {end: load_encoder(path + end) for end in ("", "@mean", "@none", "@1", "@0,2@mean")}
    widths = {end: (each.output_dim, each.hop_size_in_ms) for end, each in encoders.items()}
    assert widths == {"": (240, 160), "@mean": (48, 160), "@none": (48, 32), "@1": (240, 160), "@0,2@mean": (48, 160)}
    frames = {end: each(noise(1.0))[0] for end, each in encoders.items()}
    assert torch.allclose(frames["@none"].unflatten(0, (7, 5)).mean(1), frames["@mean"], atol=1e-6)
    assert len({each.fingerprint for each in encoders.values()}) == 5
    fused = load_encoder(f"{CUTS['beats']}@concat+{CUTS['data2vec2_audio']}+log-mel")
    assert (fused.output_dim, fused.hop_size_in_ms) == (512 + 64 + 64, 160)
    for name in ("log-mel@concat", "random:whisper-tiny@none", "random:dasheng-tiny@mean"):
        with pytest.raises(ConfigError, match="no frequency patches to pool"):
            load_encoder(name)


def test_parameters_without_positions() -> None:
    # Patches, class token, norm, one block; the fixed positions are no parameters.
    expected = (256 * 48 + 48) + 48 + 96 + (48 * 144 + 144) + (48 * 48 + 48) + 192 + (2 * 48 * 192 + 240)
    assert load_encoder(str(CUTS["eat"])).num_parameters == expected
    assert set(RANDOM) | {"beats", "eat", "best_rq", "msm_mae"} <= set(NETWORKS)
