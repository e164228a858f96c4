import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle.curate import embedding, splitting
from auricle.curate.calibration import auc
from auricle.curate.decision import NAMES, FilterConfig
from auricle.curate.embedding import captions_of
from auricle.curate.filter import filter_shards, undo_filter
from auricle.data.shards import ShardSet, ShardWriter
from auricle.errors import ConfigError, DataError, OutputError

from .tones import FEWEST_SAMPLES, Tones, pitch, tone, write_pairs


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "scores.jsonl").read_text(encoding="utf-8").splitlines()]


def column(out: Path, name: str) -> np.ndarray:
    return np.array([record[name] for record in records(out)])


def keys_of(out: Path) -> dict[str, list[str]]:
    return {name: ShardSet(out / name).keys() if any((out / name).glob("*.tar")) else [] for name in NAMES}


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the indexes of shards, which hold times."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and ".index." not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, Path, np.ndarray]:
    """2,000 pairs of two domains, of which 30 % are mismatched, filtered; and which of them belong together."""
    root = tmp_path_factory.mktemp("filtered")
    shards = write_pairs(root / "in", 2000)
    filter_shards(shards, root / "out", Tones())
    return shards, root / "out", np.array([shards.read_meta(i)["truth"] for i in range(len(shards))])


def test_matched_and_mismatched_pairs_are_distinguished(filtered: tuple[ShardSet, Path, np.ndarray]) -> None:
    _, out, truth = filtered
    assert truth.mean() == pytest.approx(0.7, abs=0.03)
    for name, sign in (("probability", 1), ("p", -1)):
        scores = sign * column(out, name)
        assert auc(scores[truth], scores[~truth]) >= 0.95
        for domain in ("bells", "tones"):
            own = column(out, "domain") == domain
            assert auc(scores[truth & own], scores[~truth & own]) >= 0.95
    # As they are, scores of two domains cannot be compared.
    scores = column(out, "score")
    assert auc(scores[truth], scores[~truth]) < 0.8
    summary = json.loads((out / "summary.json").read_text())
    assert summary["mismatched_share"] == pytest.approx((~truth).mean(), abs=0.04)
    assert summary["auc"]["probability_matched"] >= 0.95 and summary["auc"]["score"] < summary["auc"]["probability"]


def test_of_random_pairs_at_most_two_percent_pass(filtered: tuple[ShardSet, Path, np.ndarray]) -> None:
    _, out, truth = filtered
    assert (column(out, "p")[~truth] <= 0.01).mean() <= 0.02
    assert (column(out, "verdict")[~truth] == "keep").mean() <= 0.02
    summary, calibrations = (json.loads((out / name).read_text()) for name in ("summary.json", "calibration.json"))
    assert 0.002 < summary["random_passing"] <= 0.02
    assert {each["group"] for each in calibrations} == {"bells / en", "tones / en"}
    assert all(each["random_passing"] <= 0.02 for each in calibrations)
    # Yet nearly all that belong together stay.
    assert (column(out, "verdict")[truth] == "keep").mean() > 0.7
    assert (column(out, "verdict")[truth] == "drop").mean() < 0.03


def test_every_pair_is_in_one_place_with_a_reason(filtered: tuple[ShardSet, Path, np.ndarray]) -> None:
    shards, out, _ = filtered
    listed = {record["key"]: record for record in records(out)}
    assert list(listed) == shards.keys()
    found = keys_of(out)
    assert sorted(key for keys in found.values() for key in keys) == sorted(listed)
    for name, keys in found.items():
        assert keys == [key for key in shards.keys() if listed[key]["verdict"] == name]
        assert all(listed[key]["reasons"] for key in keys)
    summary = json.loads((out / "summary.json").read_text())
    assert [summary[name] for name in ("pairs", *NAMES)] == [len(listed), *(len(found[name]) for name in NAMES)]
    assert summary["signs"]["like random pairs"] == sum(record["p"] > 0.1 for record in listed.values())


def test_calibration_by_domain_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_pairs(tmp_path / "in", 600)
    monkeypatch.setattr("auricle.curate.embedding._name", lambda value: "")  # neither domain nor language is known
    filter_shards(shards, tmp_path / "out", Tones())
    truth = np.array([shards.read_meta(i)["truth"] for i in range(len(shards))])
    scores = column(tmp_path / "out", "probability")
    assert set(column(tmp_path / "out", "group")) == {"all"}
    assert auc(scores[truth], scores[~truth]) < 0.9


def test_undo_restores_the_input(filtered: tuple[ShardSet, Path, np.ndarray], tmp_path: Path) -> None:
    shards, out, _ = filtered
    tars = [index.tar for index in shards.shards]
    assert list(undo_filter(out)) == [(tar, True) for tar in tars]
    restored = [path for path, _ in undo_filter(out, tmp_path / "again")]
    assert [path.name for path in restored] == [tar.name for tar in tars]
    assert [path.read_bytes() for path in restored] == [tar.read_bytes() for tar in tars]
    assert ShardSet(tmp_path / "again").manifest_hash == shards.manifest_hash


def test_undo_without_the_input(tmp_path: Path) -> None:
    shards = write_pairs(tmp_path / "in", 120)
    tars = {index.tar: index.tar.read_bytes() for index in shards.shards}
    filter_shards(shards, tmp_path / "out", Tones())
    for tar in tars:
        tar.unlink()
    assert list(undo_filter(tmp_path / "out")) == [(tar, False) for tar in tars]
    assert {tar: tar.read_bytes() for tar in tars} == tars
    assert ShardSet(tmp_path / "in").manifest_hash == shards.manifest_hash  # the old indexes fit
    next((tmp_path / "out" / "undo").glob("*.json")).unlink()
    assert len(list(undo_filter(tmp_path / "out"))) == len(tars) - 1  # the other one is there
    for tar in tars:
        tar.unlink()
    with pytest.raises(DataError, match="was stopped before"):
        list(undo_filter(tmp_path / "out"))
    with pytest.raises(DataError, match="no folder that the filter wrote"):
        list(undo_filter(tmp_path / "in"))


# Filters shards; dies by SIGKILL at the event it is listed, one of: a sound embedded, a piece of a tar read, a file
# flushed to disk, a file renamed; before or after it.
CHILD = """
import os, signal, sys
from pathlib import Path
from auricle.curate import embedding, splitting
from auricle.curate.filter import filter_shards
from auricle.data.shards import ShardSet
sys.path.insert(0, sys.argv[1])
from tones import Tones

data, out, die, log = sys.argv[2], sys.argv[3], int(sys.argv[4]), open(sys.argv[5], "a")
embedding.WINDOW_CLIPS = 16
count = 0

def tick():
    global count
    count += 1
    if count == die:
        os.kill(os.getpid(), signal.SIGKILL)

def around(owner, name):
    inner = getattr(owner, name)
    def call(*args, **kwargs):
        tick()
        result = inner(*args, **kwargs)
        tick()
        return result
    setattr(owner, name, call)

class Mortal(Tones):
    def audio_many(self, sources):
        for result in super().audio_many(sources):
            log.write("sound\\n")
            log.flush()
            tick()
            yield result

def read(file, size, path, inner=splitting._read):
    for block in inner(file, size, path):
        yield block[: len(block) // 2]
        if count % 3 == 0:
            tick()
        yield block[len(block) // 2 :]

splitting._read = read
around(os, "fsync")
around(os, "replace")
found = filter_shards(ShardSet(data), out, Mortal())
print(count, found.encoded[0])
"""


def run(python: str, data: Path, out: Path, die: int, log: Path) -> subprocess.CompletedProcess[str]:
    command = [python, "-c", CHILD, str(Path(__file__).parent), str(data), str(out), str(die), str(log)]
    return subprocess.run(command, capture_output=True, text=True)


def stage_of(out: Path, tars: int) -> str:
    """How far a killed run came."""
    lines = [line for path in out.glob("embeddings/*/pairs.jsonl") for line in path.read_text().splitlines()]
    if len(lines) < 120:
        return "embedding"
    return "splitting" if len(list(out.glob("undo/*.json"))) < tars else "reporting"


@pytest.mark.slow
def test_killed_anywhere_the_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, warm_python: str) -> None:
    tars = len(write_pairs(tmp_path / "in", 120, max_bytes=100_000).shards)
    whole = run(sys.executable, tmp_path / "in", tmp_path / "whole", 0, tmp_path / "log")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.split()[1] == "120"

    log, out, stages = tmp_path / "log-killed", tmp_path / "killed", []
    for die in (1, 30, 55, 47, 90, 80, 90, 100, 22, 24, 3, 8, 13):
        killed = run(warm_python, tmp_path / "in", out, die, log)
        assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
        stages.append(stage_of(out, tars))
        assert not (out / "summary.json").exists()
    assert set(stages) == {"embedding", "splitting", "reporting"}
    last = run(warm_python, tmp_path / "in", out, 0, log)
    assert last.returncode == 0, last.stderr
    assert tree(out) == tree(tmp_path / "whole")
    assert {name: len(ShardSet(out / name)) for name in NAMES} == {
        name: json.loads((out / "summary.json").read_text())[name] for name in NAMES
    }
    assert len(log.read_text().splitlines()) <= 120 + 16 * stages.count("embedding")  # a kill costs a window at most


def test_another_threshold_costs_no_second_pass(tmp_path: Path) -> None:
    shards, out, model = write_pairs(tmp_path / "in", 200), tmp_path / "out", Tones()
    first = filter_shards(shards, out, model)
    assert first.encoded == (200, model.read) and model.encoded == 200
    seen: list[int] = []
    second = filter_shards(shards, out, model, FilterConfig(p=0.05, drop_p=0.05), on_pairs=seen.append)
    assert second.encoded == (0, 0) and model.encoded == 200 and sum(seen) == 200
    assert second.summary["keep"] > first.summary["keep"] and second.summary["run"] != first.summary["run"]
    assert {name: len(keys) for name, keys in keys_of(out).items()} == {name: second.summary[name] for name in NAMES}
    filter_shards(shards, tmp_path / "fresh", Tones(), FilterConfig(p=0.05, drop_p=0.05))
    assert tree(tmp_path / "fresh") == tree(out)


def test_windows_do_not_change_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_pairs(tmp_path / "in", 150)
    filter_shards(shards, tmp_path / "a", Tones())
    monkeypatch.setattr(embedding, "WINDOW_SECONDS", 0.55)
    filter_shards(shards, tmp_path / "b", Tones())
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def write_odd_ones(folder: Path) -> ShardSet:
    """A hundred matched pairs, and behind them what does not fit in."""
    rng = np.random.default_rng(3)
    with ShardWriter(folder, "odd") as writer:
        pitches = [pitch(rng) for _ in range(100)]
        for i, hertz in enumerate(pitches):
            writer.write(f"k{i}", tone(hertz, seed=i), {"caption": f"A tone of {hertz} Hz"})
        first = f"A tone of {pitches[0]} Hz"
        writer.write("twin", tone(pitches[0], seed=0), {"caption": first})
        writer.write("near", tone(pitches[1], seed=1) * np.float32(0.999), {"caption": f"Tone: {pitches[1]} Hz"})
        writer.write("list", tone(500, seed=901), {"caption": ["A tone of 500 Hz", "500 Hz", " ", 7, "500 Hz"]})
        writer.write("wrong-list", tone(500, seed=902), {"caption": ["A tone of 500 Hz", "3210 Hz", "4440 Hz"]})
        writer.write("silent", tone(500, seed=903), {"caption": " "})
        writer.write("mute", tone(500, seed=904), {})
        writer.write("short", tone(500, samples=FEWEST_SAMPLES - 1), {"caption": "A tone of 500 Hz"})
    return ShardSet(folder)


def write_noise_free(folder: Path) -> tuple[dict[str, dict[str, Any]], Any]:
    found = filter_shards(write_odd_ones(folder / "in"), folder / "out", Tones(noise=0.0))
    return {record["key"]: record for record in records(folder / "out")}, found


def test_what_cannot_be_scored_is_for_review(tmp_path: Path) -> None:
    listed, found = write_noise_free(tmp_path)
    for key, reason in (
        ("silent", "no caption in the fact 'caption'"),
        ("mute", "no caption in the fact 'caption'"),
        ("short", "not processed: too short to have a pitch"),
    ):
        assert listed[key]["verdict"] == "review" and listed[key]["reasons"] == [reason] and listed[key]["p"] is None
    assert [key for key, _ in found.failed] == ["short"]
    signs = found.summary["signs"]
    assert (signs["not heard"], signs["no caption"]) == (1, 2)
    assert listed["k5"]["verdict"] == "keep"


@pytest.mark.parametrize(
    ("listed", "captions"),
    [
        (" a dog ", ["a dog"]),
        (["a", "b ", "a", "", None, ["c"]], ["a", "b"]),
        ({"en": "a"}, []),
        (None, []),
        ("half a pair \ud800", []),
        ([str(i) for i in range(50)], [str(i) for i in range(32)]),
    ],
)
def test_captions_are_texts_or_lists_of_them(listed: Any, captions: list[str]) -> None:
    assert captions_of({"said": listed, "caption": "other"}, "said") == captions


def test_lists_of_captions_are_scored_as_one(tmp_path: Path) -> None:
    listed, _ = write_noise_free(tmp_path)
    assert listed["list"]["captions"] == ["A tone of 500 Hz", "500 Hz"] and listed["list"]["verdict"] == "keep"
    assert listed["list"]["caption_scores"] == pytest.approx([100, 100], abs=1e-3)
    wrong = listed["wrong-list"]
    assert wrong["score"] == pytest.approx(np.mean(wrong["caption_scores"]), abs=1e-3)
    assert wrong["caption_scores"][0] > 99 and max(wrong["caption_scores"][1:]) < 50
    assert "caption_scores" not in listed["k1"]


def test_of_the_same_clips_the_first_stays(tmp_path: Path) -> None:
    listed, found = write_noise_free(tmp_path)
    assert listed["k0"]["verdict"] == "keep" and listed["k0"]["same_as"] is None
    assert listed["twin"]["same_as"] == "k0" and listed["twin"]["verdict"] == "drop"
    assert listed["twin"]["reasons"] == ["the same audio as k0"]
    assert listed["near"]["near"] == "k1" and listed["near"]["verdict"] == "review"
    assert listed["near"]["near_cosine"] >= 0.995 and listed["near"]["same_as"] is None
    assert "nearly the same audio as k1: cosine" in listed["near"]["reasons"][0]
    assert found.summary["signs"]["same sound"] == 1
    shards = ShardSet(tmp_path / "in")
    filter_shards(shards, tmp_path / "out", Tones(noise=0.0), FilterConfig(keep_duplicates=True, near=1.0))
    listed = {record["key"]: record for record in records(tmp_path / "out")}
    assert listed["twin"]["same_as"] == "k0" and listed["twin"]["verdict"] == listed["near"]["verdict"] == "keep"
    assert listed["near"]["near"] is None


def test_a_mismatched_first_one_does_not_drive_out_its_twin(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    with ShardWriter(tmp_path / "in", "set") as writer:
        writer.write("wrong", tone(500, seed=999), {"caption": "A tone of 4440 Hz"})
        for i in range(100):
            hertz = pitch(rng)
            writer.write(f"k{i}", tone(hertz, seed=i), {"caption": f"A tone of {hertz} Hz"})
        writer.write("right", tone(500, seed=999), {"caption": "A tone of 500 Hz"})
    model = Tones(noise=0.0)
    filter_shards(ShardSet(tmp_path / "in"), tmp_path / "out", model)
    listed = {record["key"]: record for record in records(tmp_path / "out")}
    assert listed["wrong"]["verdict"] == "drop" and listed["wrong"]["same_as"] == "right"
    assert listed["right"]["verdict"] == "keep" and listed["right"]["same_as"] is None
    assert model.encoded == 101


def test_a_clip_that_fails_to_decode_is_reported(tmp_path: Path) -> None:
    shards = write_pairs(tmp_path / "in", 100, mismatched=0)
    tar = shards.shards[0].tar
    row = shards.shards[0].row(3)
    content = bytearray(tar.read_bytes())
    content[row.audio_offset + row.audio_size // 2] ^= 0xFF
    stat = tar.stat()
    tar.write_bytes(content)
    os.utime(tar, ns=(stat.st_mtime_ns, stat.st_mtime_ns))  # a disk that forgets leaves the time
    found = filter_shards(ShardSet(tmp_path / "in"), tmp_path / "out", Tones())
    assert [key for key, _ in found.failed] == [row.key] and row.key in found.failed[0][1]
    listed = next(record for record in records(tmp_path / "out") if record["key"] == row.key)
    assert listed["verdict"] == "review" and "not processed: " in listed["reasons"][0]
    assert [was for _, was in undo_filter(tmp_path / "out")] == [True] * len(shards.shards)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    shards = write_pairs(tmp_path / "in", 100, max_bytes=1 << 20)
    with pytest.raises(DataError, match="not empty"):
        filter_shards(shards, tmp_path / "in", Tones())
    filter_shards(shards, tmp_path / "out", Tones())
    with pytest.raises(DataError, match="other shards"):
        filter_shards(write_pairs(tmp_path / "in2", 90), tmp_path / "out", Tones())
    with pytest.raises(DataError, match="other shards"):  # the same clips, cut otherwise
        filter_shards(write_pairs(tmp_path / "in3", 100, max_bytes=90_000), tmp_path / "out", Tones())
    with pytest.raises(DataError, match=r"in the fact 'title'; .*facts: caption, domain, language, truth"):
        filter_shards(shards, tmp_path / "out", Tones(), FilterConfig(caption="title"))
    for vectors in (tmp_path / "out" / "embeddings").glob("*/audio.f32"):
        os.truncate(vectors, vectors.stat().st_size - 4)
    with pytest.raises(DataError, match="shorter than the lines"):
        filter_shards(shards, tmp_path / "out", Tones())


def test_one_run_at_a_time(tmp_path: Path) -> None:
    shards = write_pairs(tmp_path / "in", 100)

    def second(count: int) -> None:
        with pytest.raises(OutputError, match=r"out: another run is writing here \(process"):
            filter_shards(shards, tmp_path / "out", Tones())

    filter_shards(shards, tmp_path / "out", Tones(), on_pairs=second)


def test_a_full_disk_is_reported_and_what_is_done_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, model = write_pairs(tmp_path / "in", 100), Tones()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some file")

    with monkeypatch.context() as patch:
        patch.setattr(splitting, "write_bytes", full)
        with pytest.raises(DataError, match=r"some file: cannot be read or written .No space left"):
            filter_shards(shards, tmp_path / "out", model)
    assert filter_shards(shards, tmp_path / "out", model).encoded == (0, 0) and model.encoded == 100


@pytest.mark.parametrize(
    "settings",
    [{"p": 0.2}, {"p": 0.0}, {"drop_p": 1.1}, {"near": 0.1}, {"alike": 1.5}, {"top": 0}, {"top": 40}, {"caption": ""}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected|cosine"):
        FilterConfig(**settings)
