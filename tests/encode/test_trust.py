"""A user's code runs only where it was named by a path and trusted, and then behaves like any other encoder."""

import importlib.util
import os
import py_compile
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch

from auricle import load_encoder
from auricle.encode.contract import check_encoder
from auricle.encode.user_code import read_user_code
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


SIBLINGS = {
    "layers.py": "from blocks.part import scale\nVERSION = 1\n",
    "blocks/__init__.py": "",
    "blocks/part.py": "from . import other\ndef scale(x):\n    import late\n    return x * other.FACTOR * late.ONE\n",
    "blocks/other.py": "FACTOR = 2.0\n",
    "late.py": "ONE = 1.0\n",
}


def write_siblings(folder: Path) -> None:
    (folder / "blocks").mkdir()
    for name, content in SIBLINGS.items():
        (folder / name).write_text(content)


def test_files_of_the_folder_are_imported_and_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_siblings(tmp_path)
    monkeypatch.setitem(sys.modules, "layers", ModuleType("layers"))  # of another program
    path = write(tmp_path, "from layers import scale\n" + XARES.replace("self.drop(", "scale("))
    with pytest.raises(
        UnsafeWeights, match=re.escape("and blocks/__init__.py, blocks/other.py, blocks/part.py, late.py")
    ):
        load_encoder(str(path))
    plain = load_encoder(str(write(tmp_path, XARES, "plain.py")), trust_code=True)
    encoder = load_encoder(str(path), trust_code=True)
    clip = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(encoder(clip), 2 * plain(clip))
    before = encoder.fingerprint
    (tmp_path / "blocks/other.py").write_text("FACTOR = 3.0\n")
    changed = load_encoder(str(path), trust_code=True)
    assert torch.allclose(changed(clip), 3 * plain(clip)) and changed.fingerprint != before


@pytest.mark.parametrize("name", ["mine.py", "layers.py", "late.py"])
def test_bytecode_beside_the_source_never_runs(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_siblings(tmp_path)
    path = write(tmp_path, "from layers import scale\n" + XARES.replace("self.drop(", "scale("))
    mark, source = tmp_path / "mark", tmp_path / name
    other = tmp_path / "other.py"
    other.write_text(f"open({str(mark)!r}, 'w').close()\n" + source.read_text())
    compiled = importlib.util.cache_from_source(str(source))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), compiled, dfile=str(source), invalidation_mode=mode)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_encoder(str(path), trust_code=True)(torch.zeros(16_000))
    assert not mark.exists()


def test_a_file_that_changes_after_it_was_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was hashed runs, also where it is imported late."""
    write_siblings(tmp_path)
    path = write(tmp_path, "from layers import scale\n" + XARES.replace("self.drop(", "scale("))
    encoder = load_encoder(str(path), trust_code=True)
    mark = tmp_path / "mark"
    (tmp_path / "late.py").write_text(f"open({str(mark)!r}, 'w').close()\nONE = 1.0\n")
    encoder(torch.zeros(16_000))
    assert not mark.exists()


def test_an_import_that_the_source_does_not_show(tmp_path: Path) -> None:
    write_siblings(tmp_path)
    body = "import importlib\nimportlib.import_module('.la' + 'te', __package__)\n" + XARES
    with pytest.raises(AuricleError, match="No module named"):
        load_encoder(str(write(tmp_path, body)), trust_code=True)


def test_a_class_that_is_imported(tmp_path: Path) -> None:
    write(tmp_path, XARES, "network.py")
    imports = "import torch.nn\nfrom torch.nn import TransformerEncoder\nfrom network import MyEncoder\n"
    encoder = load_encoder(str(write(tmp_path, imports)), trust_code=True)
    assert [finding for finding in check_encoder(encoder) if not finding.passed] == []


SQUEEZED = XARES.replace("return self.drop(self.layer(audio.unfold(1, hop, hop)))", "return FORM")
MASKED = """
class MaskedEncoder(torch.nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.output_dim = 4

    def forward(self, audio, mask=None):
        frames = audio.unfold(1, 320, 320)
        found = torch.stack([frames.mean(-1), frames.std(-1), frames.amax(-1), frames.amin(-1)], -1)
        return FORM
"""


@pytest.mark.parametrize(
    "body",
    [
        SQUEEZED.replace("FORM", "self.layer(audio.unfold(1, hop, hop)).squeeze(0)"),
        SQUEEZED.replace("FORM", "self.layer(audio.unfold(1, hop, hop)).squeeze().detach().numpy()"),
        MASKED.replace("FORM", "(found, None)"),
        MASKED.replace("FORM", "[found, torch.ones(found.shape[:2], dtype=torch.int64)]"),
        MASKED.replace("FORM", "found, mask").replace("mask=None", "keep"),
    ],
)
def test_other_forms_keep_the_contract(tmp_path: Path, body: str) -> None:
    encoder = load_encoder(str(write(tmp_path, body.replace("found, mask", "found, keep"))), trust_code=True)
    assert [finding for finding in check_encoder(encoder) if not finding.passed] == []


def test_masked_frames_are_left_out(tmp_path: Path) -> None:
    form = "found, (torch.arange(found.shape[1]) < found.shape[1] - 2)[None]"
    encoder = load_encoder(str(write(tmp_path, MASKED.replace("FORM", form))), trust_code=True)
    assert encoder(torch.zeros(16_000)).shape == (1, 48, 4)


def test_a_module_of_hear_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, HEAR.replace("return Hidden", "assert model_file_path\n    return Hidden"))
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("hear:mine:", f"hear:{path}:"):
        with pytest.raises(UnsafeWeights, match="--trust-code"):
            load_encoder(f"{name}{weights}")
        assert not ran(path)
    named, file = (load_encoder(f"hear:{start}:{weights}", trust_code=True) for start in ("mine", path))
    clip = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(named(clip), file(clip))
    weights.write_bytes(b"2")
    assert load_encoder(f"hear:mine:{weights}", trust_code=True).fingerprint != named.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hear:no_such_package_anywhere", "no such package is installed"),
        ("hear:../mine", "no such package is installed"),
        ("hear:json", "has no load_model and no get_timestamp"),
        ("hear:absent.py", "no such file"),
    ],
)
def test_names_of_hear_that_lead_nowhere(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_encoder(name, trust_code=True)


def test_code_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(ConfigError, match="no such file"):
        load_encoder(str(tmp_path / "pipe.py"), trust_code=True)


def test_an_outline_counts_the_names_that_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "encoder.py"
    path.write_text("".join(f"def step_{number}(): ...\n" for number in range(11)))
    outline = read_user_code(path).outline()
    assert outline.endswith("function step_7 and 3 more")
