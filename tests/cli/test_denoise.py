"""`auricle denoise`: files, folders, JSON, exit codes, the page."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from .conftest import Outcome, auricle

MODEL = str(Path(__file__).parents[1] / "fixtures" / "denoiser")


def denoise(*arguments: object, stdin: bytes | None = None) -> Outcome:
    return auricle("denoise", *arguments, "--model", MODEL, "--device", "cpu", stdin=stdin)


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, rate in (("a.wav", 16_000), ("b.flac", 44_100), ("deep/a.wav", 8_000)):
        soundfile.write(folder / name, 0.1 * rng.standard_normal((rate // 2, 2)), rate)
    return folder


def test_one_file(speech: Path, tmp_path: Path) -> None:
    done = denoise(speech / "a.wav", "-o", tmp_path / "out.wav", "--keep-residual", "--json")
    assert done.code == 0
    (record,) = done.records
    assert record["output"] == str(tmp_path / "out.wav") and record["error"] is None
    assert record["residual"] == str(tmp_path / "out.residual.wav")
    assert record["receipt"]["complete"] and "speech was found in 0" in record["receipt"]["warnings"][0]
    total = sum(soundfile.read(tmp_path / name)[0] for name in ("out.wav", "out.residual.wav"))
    assert np.abs(total - soundfile.read(speech / "a.wav")[0]).max() < 1e-4


def test_a_folder_keeps_its_shape_and_bad_files_are_reported(speech: Path, tmp_path: Path) -> None:
    (speech / "bad.wav").write_bytes(b"RIFF")
    done = denoise(speech, "-o", tmp_path / "out")
    assert done.code == 1
    assert "bad.wav" in done.err and "the model was trained on speech alone" in done.err
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")) == [
        "a.wav",
        "b.flac",
        "deep/a.wav",
    ]
    for name in ("a.wav", "b.flac", "deep/a.wav"):
        before, after = soundfile.info(speech / name), soundfile.info(tmp_path / "out" / name)
        assert (before.frames, before.samplerate, before.channels) == (after.frames, after.samplerate, after.channels)


def test_existing_files_stay_without_force(speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    out.write_bytes(b"precious")
    done = denoise(speech / "a.wav", "-o", out)
    assert done.code == 1 and "exists and is not overwritten" in done.err
    assert out.read_bytes() == b"precious"
    assert denoise(speech / "a.wav", "-o", out, "--force").code == 0
    assert soundfile.info(out).frames == 8_000


def test_standard_input_and_foreign_suffixes(speech: Path, tmp_path: Path) -> None:
    content = (speech / "a.wav").read_bytes()
    assert denoise("-", "-o", tmp_path / "one.flac", stdin=content).code == 0
    assert soundfile.info(tmp_path / "one.flac").frames == 8_000
    (speech / "c.w64").write_bytes(content)
    (speech / "c.wave1").write_bytes(content)
    assert denoise("-", speech / "c.wave1", "-o", tmp_path / "two", stdin=content).code == 0
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["c.wave1.wav", "stdin.wav"]


@pytest.mark.parametrize(
    ("inputs", "more"), [(("c.m4a", "c.m4a.wav"), ()), (("a.wav", "a.residual.wav"), ("--keep-residual",))]
)
def test_two_inputs_never_share_a_file(
    speech: Path, tmp_path: Path, inputs: tuple[str, ...], more: tuple[str, ...]
) -> None:
    content = (speech / "a.wav").read_bytes()
    for name in inputs:
        (speech / name).write_bytes(content)
    done = denoise(*(speech / name for name in inputs), "-o", tmp_path / "out", "--force", *more)
    assert done.code == 2 and "both be written to" in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()


def test_wrong_usage(speech: Path, tmp_path: Path) -> None:
    assert denoise(speech / "a.wav", "-o", tmp_path / "out.txt").code == 2
    assert denoise(speech / "a.wav", "-o", tmp_path / "o.wav", "--strength", "2").code == 2
    (tmp_path / "file").write_bytes(b"")
    assert denoise(speech, "-o", tmp_path / "file").code == 2
    missing = denoise(speech / "none.wav", "-o", tmp_path / "o.wav")
    assert missing.code == 1 and "no such file" in missing.err


def test_page(speech: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = denoise(speech, "-o", tmp_path / "out", "--report", tmp_path / "page", "--strength", "0.5")
    assert done.code == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("<audio") == 9 and page.count("<svg") == 3
    assert "strength 0.5" in page and "trained on speech alone" in page and 'src="http' not in page
    for number in (1, 2, 3):
        assert (tmp_path / "page" / f"spectrogram-{number}.png").read_bytes().startswith(b"\x89PNG")


def test_the_default_model_is_named_where_it_is_absent(speech: Path, tmp_path: Path) -> None:
    from auricle.weights.catalog import entries, is_ready

    entry = next(each for each in entries() if each.name == "auricle-tiny-denoiser")
    if is_ready(entry):
        pytest.skip("it is here")
    done = auricle("denoise", speech / "a.wav", "-o", tmp_path / "o.wav")
    assert done.code == 2 and "auricle-tiny-denoiser belongs to this package" in done.err
