"""A user's code runs only where it was named by a path and trusted, and then behaves like any other encoder."""

import textwrap
from pathlib import Path

import pytest
import torch

from auricle import load_encoder
from auricle.encode.contract import check_encoder
from auricle.errors import AuricleError, ConfigError, UnsafeWeights

HEAD = "from pathlib import Path\nimport torch\nPath(__file__).with_suffix('.ran').touch()\n"
XARES = """
class SomethingElse: ...

class MyEncoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.sampling_rate, self.output_dim, self.hop_size_in_ms = RATE, 8, 10
        self.layer = torch.nn.Linear(self.sampling_rate // 100, 8)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, audio):
        assert audio.ndim == 2 and len(audio) == 1, audio.shape
        hop = self.sampling_rate // 100
        audio = audio - audio.mean(-1, keepdim=True)
        return self.drop(self.layer(audio.unfold(1, hop, hop)))
"""
HEAR = """
class HiddenEncoder:
    sample_rate, scene_embedding_size, timestamp_embedding_size = RATE, 4, 4

def load_model(model_file_path=""):
    return HiddenEncoder()

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(1)

def get_timestamp_embeddings(audio, model):
    hop = model.sample_rate // 40
    frames = audio.unfold(1, hop, hop)
    found = torch.stack([frames.mean(-1), frames.std(-1), frames.amax(-1), frames.amin(-1)], -1)
    stamps = 25.0 * (torch.arange(frames.shape[1]) + 0.5)
    return found, stamps[None].expand(len(audio), -1)
"""


def write(folder: Path, body: str, name: str = "mine.py", rate: int = 16_000) -> Path:
    path = folder / name
    path.write_text(HEAD + textwrap.dedent(body).replace("RATE", str(rate)))
    return path


def ran(path: Path) -> bool:
    return path.with_suffix(".ran").exists()


@pytest.mark.parametrize("body", [XARES, HEAR])
@pytest.mark.parametrize("way", ["{}", "log-mel+{}", "{}+log-mel"])
def test_nothing_runs_untrusted(tmp_path: Path, body: str, way: str) -> None:
    path = write(tmp_path, body)
    with pytest.raises(UnsafeWeights, match="Nothing was run") as caught:
        load_encoder(way.format(path))
    message = str(caught.value)
    assert str(path) in message and "trust_code=True" in message
    assert ("class MyEncoder" if body is XARES else "function get_timestamp_embeddings") in message
    assert not ran(path)


def test_what_would_run_is_stated_for_any_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def (:")
    with pytest.raises(UnsafeWeights, match="not valid Python"):
        load_encoder(str(broken))
    with pytest.raises(UnsafeWeights, match="statements without"):
        load_encoder(str(write(tmp_path, "x = 1")))
    with pytest.raises(ConfigError, match="no such file"):
        load_encoder(str(tmp_path / "absent.py"), trust_code=True)


@pytest.mark.parametrize("rate", [16_000, 32_000])
@pytest.mark.parametrize(("body", "width", "hop"), [(XARES, 8, 10), (HEAR, 4, 25)])
def test_trusted_code_keeps_the_contract(tmp_path: Path, body: str, width: int, hop: int, rate: int) -> None:
    path = write(tmp_path, body, rate=rate)
    encoder = load_encoder(str(path), trust_code=True)
    assert ran(path)
    assert (encoder.sampling_rate, encoder.output_dim, encoder.hop_size_in_ms) == (16_000, width, hop)
    assert [finding for finding in check_encoder(encoder) if not finding.passed] == []


def test_frames_are_those_of_the_code(tmp_path: Path) -> None:
    clip = torch.randn(1, 3_200, generator=torch.Generator().manual_seed(0))
    encoder = load_encoder(str(write(tmp_path, HEAR)), trust_code=True)
    frames = clip.unfold(1, 400, 400)
    assert torch.allclose(encoder(clip)[0, :, 0], frames.mean(-1)[0], atol=1e-6)


def test_the_fingerprint_follows_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, XARES)
    first, again = (load_encoder(str(path), trust_code=True).fingerprint for _ in range(2))
    path.write_text(path.read_text() + "# changed\n")
    assert first == again != load_encoder(str(path), trust_code=True).fingerprint


def test_code_beside_another_encoder(tmp_path: Path) -> None:
    fused = load_encoder(f"{write(tmp_path, XARES)}+random:dasheng-tiny", trust_code=True)
    assert (fused.output_dim, fused.hop_size_in_ms) == (264, 40)
    assert fused(torch.zeros(16_000)).shape == (1, 25, 264)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1", "ending in Encoder: none"),
        (XARES + "\nclass OtherEncoder: ...\n", "MyEncoder, OtherEncoder"),
        ("from auricle.encode.encoder import Encoder", "ending in Encoder: none"),  # imported, not defined here
        ("class MyEncoder: ...", "MyEncoder.sampling_rate is None"),
        (XARES.replace("RATE, 8, 10", "RATE, 8, 0"), "hop_size_in_ms is 0"),
        (XARES.replace("def __init__(self):", "def __init__(self, size):"), r"MyEncoder\(\) failed \(TypeError"),
        ("import no_such_package_anywhere", "running it failed .ModuleNotFoundError"),
        (HEAR.replace("found, stamps[None]", "found, 0 * stamps[None]"), "timestamps; expected several"),
        (HEAR.replace("return HiddenEncoder()", "raise OSError('no weights')"), r"load_model\(\) failed .OSError"),
    ],
)
def test_code_that_is_no_encoder(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(AuricleError, match=message):
        load_encoder(str(write(tmp_path, body)), trust_code=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("return self.drop(", "return torch.mean(dim=1, input="), r"returned \(1, 8\) for one clip"),
        (
            ("torch.nn.Linear(self.sampling_rate // 100, 8)", "torch.nn.Linear(self.sampling_rate // 100, 9)"),
            "expected",
        ),
        (("assert audio.ndim == 2", "assert audio.ndim == 7"), "MyEncoder failed on 16000 samples"),
    ],
)
def test_code_that_breaks_the_contract(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in XARES
    encoder = load_encoder(str(write(tmp_path, XARES.replace(*change))), trust_code=True)
    with pytest.raises(AuricleError, match=message):
        encoder(torch.zeros(16_000))


def test_settings_that_code_decides_are_refused(tmp_path: Path) -> None:
    path = str(write(tmp_path, XARES))
    for arguments in ({"dtype": "bfloat16"}, {"layer": 1}):
        with pytest.raises(ConfigError, match=r"mine\.py"):
            load_encoder(path, trust_code=True, **arguments)  # type: ignore[arg-type]
