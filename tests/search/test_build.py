import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from auricle.encode.aligner import Aligner
from auricle.errors import ConfigError, DataError, OutputError
from auricle.models.dasheng import DashengConfig
from auricle.models.glap import Glap, GlapConfig
from auricle.models.sonar import SonarConfig
from auricle.search import build as search_build
from auricle.search.build import BuildReport, build_index
from auricle.search.index import Settings, read_index
from auricle.search.journal import Journal
from auricle.search.query import Index, embed_query
from auricle.weights.glap import LoadedGlap

from ..encode.toy_aligner import ToyAligner, write_tone


@pytest.fixture(scope="module")
def real() -> Aligner:
    """A small network of the real kind, for audio and not for text."""
    torch.manual_seed(4)
    audio = DashengConfig(embed_dim=16, depth=1, num_heads=2)
    text = SonarConfig(vocab_size=32, width=8, depth=1, num_heads=2, hidden=16)
    model = Glap(GlapConfig(audio=audio, text=text, embed_dim=12)).eval()
    return Aligner(LoadedGlap(model=model, tokenizer=None, identity={"name": "small"}))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three short tones, and a file of 31 s that is low, then high."""
    folder = tmp_path / "clips"
    for seed, word in enumerate(("low", "middle", "high")):
        write_tone(folder / f"{word}.wav", word, 1.5, seed)
    halves = [write_tone(folder / f"{word}.part.wav", word, 15.5) for word in ("low", "high")]
    soundfile.write(folder / "long.wav", np.concatenate([soundfile.read(half)[0] for half in halves]), 16_000)
    for half in halves:
        half.unlink()
    return folder


def build(aligner: ToyAligner, folder: Path, index: Path, **settings: Any) -> BuildReport:
    return build_index(aligner, sorted(folder.iterdir()), index, **settings)  # type: ignore[arg-type]


def names(aligner: ToyAligner) -> list[str]:
    """The files that went through the model since the last call."""
    names, aligner.names = [Path(name).name for name in aligner.names], []
    return sorted(names)


def test_round_trip(clips: Path, tmp_path: Path) -> None:
    aligner, path = ToyAligner(), tmp_path / "clips.auricle"
    report = build(aligner, clips, path, model="toy")
    assert report == BuildReport(files=4, segments=9, encoded=4, reused=0, removed=0)
    index = Index.open(path)
    assert (len(index), index.num_files, index.settings.model) == (9, 4, "toy")
    assert (index.settings.window_s, index.settings.hop_s) == (10.0, 5.0)
    assert [entry.name for entry in index.file.entries()] == [str(file) for file in sorted(clips.iterdir())]
    for word in ("low", "middle", "high"):
        file = str(clips / f"{word}.wav")
        wanted = 100 * float(aligner.audio([file])[0] @ aligner.text([word])[0])
        (own,) = [hit for hit in index.search(aligner.text([word]), 4) if hit.path == file]
        assert (own.start_s, own.end_s, own.score) == (0, 1.5, pytest.approx(wanted, abs=0.1))
        assert index.search(aligner.audio([file]), 1)[0].path == file
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*"))


def test_a_long_file_is_found_where_it_fits(clips: Path, tmp_path: Path) -> None:
    aligner, path = ToyAligner(), tmp_path / "x.auricle"
    build(aligner, clips, path)
    index, file = Index.open(path), str(clips / "long.wav")
    times = index.file.times[[entry.start for entry in index.file.entries()][1] :][:6].tolist()
    assert times == [[0, 10], [5, 15], [10, 20], [15, 25], [20, 30], [25, 31]]

    def places(word: str, **settings: Any) -> list[tuple[float, float]]:
        hits = index.search(aligner.text([word]), 9, **settings)
        return [(hit.start_s, hit.end_s) for hit in hits if hit.path == file]

    assert places("low")[0] in [(0, 10), (5, 15)] and len(places("low")) == 1
    assert places("high")[0][0] >= 20
    assert set(places("low", all_segments=True)[:2]) == {(0, 10), (5, 15)}
    assert len(places("low", all_segments=True)) == 6


def test_windows_of_ones_own(clips: Path, tmp_path: Path) -> None:
    build(ToyAligner(), clips, tmp_path / "x.auricle", window_s=1.0, hop_s=1.0)
    counts = {Path(entry.name).name: entry.segments for entry in read_index(tmp_path / "x.auricle").entries()}
    assert counts == {"high.wav": 2, "long.wav": 31, "low.wav": 2, "middle.wav": 2}
    with pytest.raises(ConfigError):
        build(ToyAligner(), clips, tmp_path / "y.auricle", window_s=1.0, hop_s=2.0)


def test_only_what_changed_is_encoded(clips: Path, tmp_path: Path) -> None:
    aligner, path = ToyAligner(), tmp_path / "x.auricle"
    build(aligner, clips, path)
    assert names(aligner) == ["high.wav", "long.wav", "low.wav", "middle.wav"]
    before, inode = path.read_bytes(), path.stat().st_ino

    report = build(aligner, clips, path)
    assert (report.encoded, report.reused, report.removed) == (0, 4, 0) and names(aligner) == []
    assert path.stat().st_ino == inode  # there was nothing to write

    os.utime(clips / "low.wav", ns=(1, 1))  # another time, the same content
    (clips / "middle.wav").rename(clips / "renamed.wav")
    shutil.copy(clips / "high.wav", clips / "copy.wav")
    (clips / "long.wav").unlink()
    write_tone(clips / "new.wav", "middle", 2.0, 9)
    report = build(aligner, clips, path)
    assert names(aligner) == ["new.wav"]
    assert report == BuildReport(files=5, segments=5, encoded=1, reused=4, removed=2)
    index = Index.open(path)
    assert {entry.name for entry in index.file.entries()} == {str(file) for file in clips.iterdir()}
    assert index.search(aligner.audio([clips / "renamed.wav"]), 1)[0].path == str(clips / "renamed.wav")
    assert {hit.path for hit in index.search(aligner.audio([clips / "high.wav"]), 2)} == {
        str(clips / "high.wav"),
        str(clips / "copy.wav"),
    }
    assert path.read_bytes() != before


def test_an_updated_index_equals_a_new_one(clips: Path, tmp_path: Path) -> None:
    aligner = ToyAligner()
    (clips / "low.wav").rename(tmp_path / "low.wav")
    build(aligner, clips, tmp_path / "x.auricle")
    (tmp_path / "low.wav").rename(clips / "low.wav")
    build(aligner, clips, tmp_path / "x.auricle")
    build(aligner, clips, tmp_path / "y.auricle")
    assert (tmp_path / "x.auricle").read_bytes() == (tmp_path / "y.auricle").read_bytes()


def test_a_change_that_keeps_size_and_time_is_seen_by_reading(clips: Path, tmp_path: Path) -> None:
    aligner, path, file = ToyAligner(), tmp_path / "x.auricle", clips / "low.wav"
    build(aligner, clips, path)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    write_tone(file, "high", 1.5, 5)
    os.utime(file, ns=times)
    names(aligner)
    build(aligner, clips, path)
    assert names(aligner) == []
    build(aligner, clips, path, rehash=True)
    assert names(aligner) == ["low.wav"]


def test_equal_files_are_encoded_once(tmp_path: Path) -> None:
    aligner, folder = ToyAligner(), tmp_path / "clips"
    write_tone(folder / "a.wav", "low", 1.0)
    shutil.copy(folder / "a.wav", folder / "b.wav")
    report = build(aligner, folder, tmp_path / "x.auricle")
    assert len(aligner.names) == 1 and (report.files, report.encoded, report.reused) == (2, 1, 1)
    hits = Index.open(tmp_path / "x.auricle").search(aligner.text(["low"]), 5)
    assert [Path(hit.path).name for hit in hits] == ["a.wav", "b.wav"] and hits[0].score == hits[1].score


def test_bad_files_are_reported_and_left_out(clips: Path, tmp_path: Path) -> None:
    aligner, path = ToyAligner(), tmp_path / "x.auricle"
    (clips / "page.wav").write_text("<html>")
    (clips / "empty.wav").touch()
    os.mkfifo(clips / "pipe.wav")
    whole = write_tone(clips / "cut.wav", "low", 2.0).read_bytes()
    (clips / "cut.wav").write_bytes(whole[: len(whole) // 2])
    long = (clips / "long.wav").read_bytes()
    (clips / "long.wav").write_bytes(long[: len(long) // 2])
    bad, seen = {"page.wav", "empty.wav", "pipe.wav", "none.wav"}, {}
    report = build_index(
        aligner,  # type: ignore[arg-type]
        [*clips.iterdir(), clips / "none.wav"],
        path,
        on_file=lambda name, error: seen.update({Path(name).name: error}),
    )
    assert {Path(name).name for name in report.failed} == bad == {name for name, error in seen.items() if error}
    assert len(seen) == 9
    assert all(Path(name).name in error for name, error in report.failed.items())
    assert {Path(name).name for name in report.partial} == {"cut.wav", "long.wav"}
    assert report.files == 5 == read_index(path).name_ends.size
    for name in bad:
        (clips / name).unlink(missing_ok=True)
    assert build(aligner, clips, path) == BuildReport(files=5, segments=report.segments, encoded=0, reused=5, removed=0)


def test_an_index_of_nothing_finds_nothing(tmp_path: Path) -> None:
    report = build_index(ToyAligner(), [tmp_path / "none.wav"], tmp_path / "x.auricle")  # type: ignore[arg-type]
    assert report.files == 0 and len(report.failed) == 1
    assert Index.open(tmp_path / "x.auricle").search(np.ones(16), 3) == []


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_run(clips: Path, tmp_path: Path) -> None:
    class Disturbing(ToyAligner):
        def on_sound(self, name: str) -> None:
            if name.endswith("low.wav"):
                write_tone(Path(name), "high", 1.25)

    report = build(Disturbing(), clips, tmp_path / "x.auricle")
    assert [Path(name).name for name in report.failed] == ["low.wav"]
    assert "changed while" in next(iter(report.failed.values())) and report.files == 3
    assert build(ToyAligner(), clips, tmp_path / "x.auricle").encoded == 1


def test_a_vector_that_is_no_number_costs_its_file(clips: Path, tmp_path: Path) -> None:
    class Failing(ToyAligner):
        def embed(self, waveform: np.ndarray) -> Any:
            return super().embed(waveform) * (float("nan") if len(waveform) == 24_000 else 3.0)

    report = build(Failing(), clips, tmp_path / "x.auricle")
    assert len(report.failed) == 3 and report.files == 1
    lengths = np.linalg.norm(read_index(tmp_path / "x.auricle").vectors.astype(float), axis=1)
    assert np.allclose(lengths, 1, atol=1e-3)


def test_another_model_or_other_windows_are_refused(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.auricle"
    build(ToyAligner(), clips, path, model="toy")
    before = path.read_bytes()
    other = ToyAligner("cd" * 32)
    for aligner, settings in ((other, {}), (ToyAligner(), {"window_s": 8.0}), (ToyAligner(), {"hop_s": 2.5})):
        with pytest.raises(ConfigError, match=r"x\.auricle: was made with model 'toy', windows of 10 s every 5 s"):
            build(aligner, clips, path, **settings)
        assert not aligner.names and path.read_bytes() == before
    assert build(ToyAligner(), clips, path, model="/a/folder").reused == 4  # the same model by another name
    index = Index.open(path)
    index.check_model("ab" * 32)
    with pytest.raises(ConfigError, match=r"made with model 'toy' \(abababababab"):
        index.check_model(other.fingerprint)


def test_what_is_no_index_is_not_replaced(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.auricle"
    path.write_text("my diary")
    with pytest.raises(DataError, match="not an index"):
        build(ToyAligner(), clips, path)
    assert path.read_text() == "my diary" and not list(tmp_path.glob("*.partial"))
    with pytest.raises(OutputError, match="cannot be written"):
        build(ToyAligner(), clips, tmp_path / "no" / "x.auricle")


def test_two_runs_do_not_write_one_index(clips: Path, tmp_path: Path) -> None:
    class Nosy(ToyAligner):
        def on_sound(self, name: str) -> None:
            with pytest.raises(OutputError, match="another run"):
                build(ToyAligner(), clips, tmp_path / "x.auricle")

    assert build(Nosy(), clips, tmp_path / "x.auricle").files == 4


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from toy_aligner import ToyAligner
from auricle.search.build import build_index
from auricle.search import build as search_build

class Mortal(ToyAligner):
    def on_sound(self, name):
        super().on_sound(name)
        if len(self.names) > int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

search_build._GROUP = 2
if sys.argv[5] == "write":
    search_build.write_index = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
build_index(Mortal(), sorted(Path(sys.argv[2]).iterdir()), sys.argv[3])
"""


def run_and_die(python: str, folder: Path, index: Path, after: int, where: str = "") -> None:
    command = [
        python,
        "-c",
        CHILD,
        str(Path(__file__).parents[1] / "encode"),
        str(folder),
        str(index),
        str(after),
        where,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_again_and_again_nothing_is_encoded_twice(tmp_path: Path, warm_python: str) -> None:
    folder, path = tmp_path / "clips", tmp_path / "x.auricle"
    for seed in range(8):
        write_tone(folder / f"{seed}.wav", "low", 1.0, seed)
    run_and_die(warm_python, folder, path, 3)
    journal = tmp_path / "x.auricle.partial"
    torn = journal.read_bytes()
    run_and_die(warm_python, folder, path, 2)
    assert journal.read_bytes().startswith(torn) and len(journal.read_bytes()) > len(torn) and not path.exists()
    journal.write_bytes(journal.read_bytes() + torn[-40:])  # what a power cut may leave
    aligner = ToyAligner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_build, "_GROUP", 2)
        report = build(aligner, folder, path)
    assert len(aligner.names) == 3 and report.files == 8 and not journal.exists()
    build(ToyAligner(), folder, tmp_path / "whole.auricle")
    assert path.read_bytes() == (tmp_path / "whole.auricle").read_bytes()


def test_killed_while_it_writes_the_old_index_is_whole(clips: Path, tmp_path: Path, warm_python: str) -> None:
    path, late = tmp_path / "x.auricle", tmp_path / "late.wav"
    (clips / "low.wav").rename(late)
    build(ToyAligner(), clips, path)
    before = path.read_bytes()
    late.rename(clips / "low.wav")
    run_and_die(warm_python, clips, path, 9, "write")
    assert path.read_bytes() == before
    aligner = ToyAligner()
    assert build(aligner, clips, path).files == 4 and not aligner.names


def test_the_journal_of_other_settings_is_forgotten(clips: Path, tmp_path: Path, warm_python: str) -> None:
    path = tmp_path / "x.auricle"
    run_and_die(warm_python, clips, path, 2)
    aligner = ToyAligner()
    assert build(aligner, clips, path, window_s=5.0).files == 4 and len(aligner.names) == 4


def test_a_journal_with_a_wrong_byte_ends_before_it(tmp_path: Path) -> None:
    settings = Settings(fingerprint="ab" * 32, embedding_dim=16, window_s=10.0, hop_s=5.0)
    path, rows = tmp_path / "journal", (np.array([[0.0, 1.0]]), np.ones((1, 16), np.float16))
    with path.open("w+b") as file:
        journal = Journal(file, settings)
        for digest in (b"a" * 32, b"b" * 32, b"c" * 32):
            journal.add(digest, *rows)
    content = bytearray(path.read_bytes())
    content[content.index(b"b" * 32) + 40] ^= 1
    path.write_bytes(content)
    with path.open("r+b") as file:
        journal = Journal(file, settings)
        found = [journal.find(digest * 32) for digest in (b"a", b"b", b"c")]
        assert found[0] and found[1:] == [None, None]
        times, vectors = found[0].rows()
        assert times.tolist() == [[0, 1]] and vectors.tolist() == rows[1].tolist()


def test_the_real_model_indexes_its_own_way(real: Aligner, wavs: list[Path], tmp_path: Path) -> None:
    """Files of 0.5 to 31 s: each segment's vector is what the model gives for it."""
    report = build_index(real, wavs, tmp_path / "x.auricle")
    assert report.files == len(wavs) and not report.failed and not report.partial
    for entry in read_index(tmp_path / "x.auricle").entries():
        times, vectors = entry.rows()
        expected = real.segments(entry.name, window_s=10.0, hop_s=5.0)
        assert np.allclose(times, expected[0].numpy(), atol=1e-4)
        assert np.abs(vectors.astype(np.float32) - expected[1].numpy()).max() <= 1e-3
    hits = Index.open(tmp_path / "x.auricle").search(embed_query(real, clips=[wavs[1]]), 2)
    assert hits[0].path == str(wavs[1]) and hits[0].score == pytest.approx(100, abs=0.05)
