"""The whole factory: the same shards from any number of processes and after any kill; nothing lost or doubled."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from auricle.curate.factory.clips import Source
from auricle.curate.factory.experts import Expert, ExpertInput, Fact
from auricle.curate.factory.pages import write_report
from auricle.curate.factory.results import read_summary
from auricle.curate.factory.run import FactorySettings, Made, caption_sources
from auricle.curate.factory.tasks import WorkSettings
from auricle.data.shards import ShardSet
from auricle.errors import ConfigError, DataError
from auricle.evaluate.mecat import read_references

from .signals import PITCH, RATE, noise, write_tones

PLUG_IN = """
import os, signal
from auricle.curate.factory.experts import Expert, Fact

def tag(settings):
    def run(clips):
        facts = [Fact(name="caption", value="A tone.", confidence=0.9), Fact(name="tag", value="sound", confidence=0.9)]
        return [[*facts, Fact(name="event", value="dog", confidence=0.9)] for clip in clips]
    return Expert(name="guest-tags", version="1", phase="tag", gives=("caption", "tag", "event"), run=run)

def make(settings):
    def run(clips):
        for clip in clips:
            with open(settings.argument + "/log", "a") as log:
                log.write(clip.clip_hash + "\\n")
            deadly = settings.argument + "/deadly"
            if os.path.exists(deadly) and clip.clip_hash in open(deadly).read():
                once = settings.argument + "/once"
                if os.path.exists(once):
                    os.unlink(once)
                    open(deadly, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        return [[Fact(name="label", value="seen", confidence=1.0)] for clip in clips]
    return Expert(name="guest", version="1", phase="acoustics", gives=("label",), run=run)
"""


def work(*experts: str | Expert) -> WorkSettings:
    return WorkSettings(out="", experts=experts or (PITCH, "level"), device="cpu")


def run(sources: Sequence[Source], out: Path, settings: WorkSettings | None = None, **more: Any) -> Made:
    return caption_sources(sources, out, settings or work(), FactorySettings(block=8, **more))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def outputs(out: Path) -> dict[str, bytes]:
    """All that must not depend on how a run was made."""
    files = [*out.glob("shards/*.tar"), *out.glob("mecat/*/*.jsonl"), out / "clips.jsonl", out / "dead_letters.jsonl"]
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(files)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Source], Path, Made]:
    """Thirty tones, two of them doubled, and a file that cannot be read."""
    folder = tmp_path_factory.mktemp("made")
    sources = write_tones(folder / "in", 30)
    doubled = [replace(source, id=f"again-{source.id}") for source in sources[:2]]
    (folder / "in" / "bad.wav").write_bytes(b"RIFF and nothing else")
    sources = [*sources, *doubled, Source(id="bad", audio=str(folder / "in" / "bad.wav"))]
    return sources, folder / "out", run(sources, folder / "out")


def test_every_clip_is_packed_dropped_or_failed(made: tuple[list[Source], Path, Made]) -> None:
    sources, out, found = made
    listed = rows(out / "clips.jsonl")
    assert [row["id"] for row in listed] == [source.id for source in sources]
    states = {
        state: [row["key"] for row in listed if row["state"] == state] for state in ("packed", "dropped", "failed")
    }
    assert [len(states[state]) for state in states] == [30, 2, 1]
    assert ShardSet(out / "shards").keys() == states["packed"]
    assert found.summary["dropped"] == {"duplicate": 2} and found.summary["failed"] == {"segment": 1}
    assert [(letter["key"], letter["stage"]) for letter in rows(out / "dead_letters.jsonl")] == [("bad", "segment")]
    assert read_summary(out) == found.summary


def test_shards_carry_captions_evidence_and_licence(made: tuple[list[Source], Path, Made]) -> None:
    shards = ShardSet(made[1] / "shards")
    for place in range(len(shards)):
        record = shards.read(place)
        meta = record.meta
        assert meta["source"]["license"] == "CC0-1.0" and meta["source"]["facts"]["author"] == "a machine"
        assert len(record.waveform) == RATE
        assert len(meta["long"]) == 3 and meta["caption"] == meta["long"][0] and len(meta["questions"]) == 5
        for numbers in meta["evidence"]["long"]:
            assert numbers and max(numbers) < len(meta["facts"])
    domains = {shards.read_meta(place)["domain"] for place in range(len(shards))}
    assert domains == {"00A", "S00", "0M0"}


def test_the_test_files_are_read_by_evaluate(made: tuple[list[Source], Path, Made]) -> None:
    captions, questions = (read_references(made[1] / "mecat" / kind) for kind in ("caption", "qa"))
    assert (captions.kind, len(captions.entries)) == ("caption", 30)
    assert (questions.kind, len(questions.entries)) == ("qa", 150)
    assert {questions.clip(name) for name in questions.entries} == set(captions.entries)
    assert all(len(each.texts["short"]) == 3 for each in captions.entries.values())


def test_a_second_run_runs_no_expert(made: tuple[list[Source], Path, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    sources, out, first = made
    before = outputs(out)

    def refuse(clips: Sequence[ExpertInput]) -> Any:
        raise AssertionError("an expert ran twice")

    again = run(sources, out, work(replace(PITCH, run=refuse), "level"))
    assert again.summary["throughput"] == []
    assert again.summary["manifest"] == first.summary["manifest"]
    assert outputs(out) == before
    assert [each["clips"] for each in again.summary["costs"]] == [30, 30]


def test_another_version_of_an_expert_runs_again(made: tuple[list[Source], Path, Made], tmp_path: Path) -> None:
    sources = made[0]
    run(sources, tmp_path / "out")
    newer = run(sources, tmp_path / "out", work(replace(PITCH, version="2"), "level"))
    assert [(each["expert"], each["clips"]) for each in newer.summary["throughput"]] == [("pitch@2", 30)]


def test_one_and_two_processes_give_the_same_shards(tmp_path: Path) -> None:
    sources = write_tones(tmp_path / "in", 12)
    sources += [Source(id=name, audio=str(Path(__file__).parents[3] / "examples" / f"{name}.ogg")) for name in EXAMPLES]
    settings = WorkSettings(out="", device="cpu")
    found = [
        run(sources, tmp_path / f"out{workers}", settings, workers=workers).summary["manifest"] for workers in (0, 1, 2)
    ]
    assert len(set(found)) == 1 and found[0]
    assert outputs(tmp_path / "out0") == outputs(tmp_path / "out1") == outputs(tmp_path / "out2")


EXAMPLES = ("alarm", "piano", "two_voices", "voice", "voice_over_piano")


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of an installed package with the expert ``guest``, which ends its process on the clips it is told."""
    info = tmp_path / "site" / "guest-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[auricle.experts]\nguest = guest_of_factory:make\nguest-tags = guest_of_factory:tag\n"
    )
    (tmp_path / "site" / "guest_of_factory.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    (tmp_path / "told").mkdir()
    return tmp_path / "told"


def clip_hashes(out: Path) -> dict[str, str]:
    return {row["key"]: row["clip_hash"] for row in rows(out / "clips.jsonl")}


def test_a_killed_process_loses_nothing(tmp_path: Path, guest: Path) -> None:
    sources = write_tones(tmp_path / "in", 20)
    settings = work("guest-tags", f"guest:{guest}")
    run(sources, tmp_path / "whole", settings, workers=1)
    (guest / "deadly").write_text(clip_hashes(tmp_path / "whole")["007"])
    (guest / "once").touch()
    found = run(sources, tmp_path / "killed", settings, workers=1)
    assert not (guest / "once").exists(), "the process was killed"
    assert found.dead == []
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")


def test_a_clip_that_ends_its_process_is_a_dead_letter_and_the_others_go_on(tmp_path: Path, guest: Path) -> None:
    sources = write_tones(tmp_path / "in", 20)
    settings = work("guest-tags", "level", f"guest:{guest}")
    run(sources, tmp_path / "whole", settings, workers=1)
    (guest / "deadly").write_text(clip_hashes(tmp_path / "whole")["007"])
    found = run(sources, tmp_path / "killed", settings, workers=2)
    (letter,) = found.dead
    assert (letter.key, letter.stage, letter.expert) == ("007", "acoustics", "guest@1")
    assert "signal 9" in letter.reason
    assert found.summary["packed"] == 20
    shards = ShardSet(tmp_path / "killed" / "shards")
    labelled = {
        key
        for place, key in enumerate(shards.keys())
        if any(fact["name"] == "label" for fact in shards.read_meta(place)["facts"])
    }
    assert labelled == set(shards.keys()) - {"007"}
    # The next run does not try it again.
    assert [each.key for each in run(sources, tmp_path / "killed", settings, workers=2).dead] == ["007"]


def test_a_killed_run_continues_and_no_expert_runs_twice(tmp_path: Path, guest: Path) -> None:
    sources = write_tones(tmp_path / "in", 24)
    settings = work("guest-tags", f"guest:{guest}")
    run(sources, tmp_path / "whole", settings, workers=0)
    (guest / "log").unlink()
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from auricle.curate.factory import store
        from auricle.curate.factory.clips import Source
        from auricle.curate.factory.run import FactorySettings, caption_sources
        from auricle.curate.factory.tasks import WorkSettings
        add = store.FactStore.add
        def slowly(self, expert, rows):
            add(self, expert, rows)
            if expert.name == "guest":
                Path({str(tmp_path / "started")!r}).touch()
                time.sleep(60)
        store.FactStore.add = slowly
        folder = Path({str(tmp_path / "in")!r})
        sources = [Source(id=p.stem, audio=str(p), meta={{"license": "CC0-1.0", "author": "a machine"}})
                   for p in sorted(folder.glob("*.wav"))]
        work = WorkSettings(out="", device="cpu", experts={settings.experts!r})
        caption_sources(sources, {str(tmp_path / "out")!r}, work, FactorySettings(block=8))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    for _ in range(600):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "summary.json").exists()
    first = (guest / "log").read_text().split()
    assert len(first) == 8
    run(sources, tmp_path / "out", settings, workers=0)
    every = (guest / "log").read_text().split()
    assert sorted(every) == sorted(set(every)) and len(every) == 24
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_only_licences_that_are_wanted(tmp_path: Path) -> None:
    sources = write_tones(tmp_path / "in", 6)
    sources = [
        replace(each, meta={"license": "CC BY-NC 4.0"} if i % 2 else each.meta) for i, each in enumerate(sources)
    ]
    found = run(sources, tmp_path / "out", licences=("cc0-1.0",))
    assert found.summary["packed"] == 3 and found.summary["dropped"] == {"licence": 3}
    reasons = [row["reason"] for row in rows(tmp_path / "out" / "clips.jsonl") if row["state"] == "dropped"]
    assert reasons == ["licence CC BY-NC 4.0"] * 3


def test_failures_of_experts_are_dead_letters(tmp_path: Path) -> None:
    def fail(clips: Sequence[ExpertInput]) -> list[list[Fact]]:
        raise ValueError("no")

    broken = Expert(name="broken", version="1", phase="acoustics", gives=("label",), run=fail)
    found = run(write_tones(tmp_path / "in", 3), tmp_path / "out", work(PITCH, broken))
    assert [(letter.stage, letter.expert) for letter in found.dead] == [("acoustics", "broken@1")] * 3
    assert found.summary["packed"] == 3
    untagged = run(write_tones(tmp_path / "in", 3), tmp_path / "none", work(replace(PITCH, run=fail, name="tagger")))
    assert untagged.summary["packed"] == 0 and untagged.summary["failed"] == {"tag": 3}
    assert {row["state"] for row in rows(tmp_path / "none" / "clips.jsonl")} == {"failed"}


def test_a_clip_that_cannot_be_packed_is_not_counted(tmp_path: Path) -> None:
    sources = write_tones(tmp_path / "in", 3)
    loud, _ = soundfile.read(sources[0].audio)
    soundfile.write(sources[0].audio, 100 * loud / abs(loud).max(), RATE, "FLOAT")
    found = run(sources, tmp_path / "out").summary
    packed = [row for row in rows(tmp_path / "out" / "clips.jsonl") if row["state"] == "packed"]
    assert found["failed"] == {"pack": 1} and found["packed"] == len(packed) == 2
    assert found["packed_s"] == 2.0 and sum(found["domains"].values()) == 2
    only = run(sources[:1], tmp_path / "only").summary
    assert only["packed"] == 0 and write_report(tmp_path / "only").is_file()


@pytest.mark.parametrize("mark", ["", "[]", "{}"])
def test_a_damaged_mark_is_refused(tmp_path: Path, mark: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "captions.json").write_text(mark, encoding="utf-8")
    with pytest.raises(DataError, match="factory, or damaged"):
        run(write_tones(tmp_path / "in", 1), tmp_path / "out")


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    sources = write_tones(tmp_path / "in", 2)
    with pytest.raises(DataError, match="no audio"):
        run([], tmp_path / "out")
    with pytest.raises(DataError, match="twice"):
        run([*sources, sources[0]], tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(DataError, match="not empty"):
        run(sources, tmp_path / "other")
    with pytest.raises(ConfigError, match="stays in this process"):
        run(sources, tmp_path / "out", workers=1)
    with pytest.raises(DataError, match="no finished run"):
        read_summary(tmp_path / "nothing")


def test_a_file_that_changed_between_runs_is_cut_again(tmp_path: Path) -> None:
    sources = write_tones(tmp_path / "in", 3)
    first = run(sources, tmp_path / "out").summary["manifest"]
    soundfile.write(sources[1].audio, np.concatenate([noise(1), noise(1, 3)]), RATE, "FLOAT")
    again = run(sources, tmp_path / "out")
    assert again.dead == [] and again.summary["manifest"] != first
    assert again.summary["audio_s"] == 4.0


def test_the_filter_keeps_clips_whose_captions_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from auricle.encode import aligner

    class Pitches:
        """Vectors of the event of a clip and of the words of a caption; two clips are given wrong ones."""

        embedding_dim, fingerprint = 8, "pitches"

        def audio_many(self, waves: Any) -> Any:
            for wave in waves:
                hertz = np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave)
                yield type("Found", (), {"values": self.vector(round(hertz / 110))})()

        def text(self, strings: Sequence[str]) -> Any:
            pitch = {"dog": 4, "rooster": 8, "rain": 12}
            return np.stack([self.vector(next((n for w, n in pitch.items() if w in s.lower()), 20)) for s in strings])

        def vector(self, number: int) -> np.ndarray:
            found = np.random.default_rng(number).standard_normal(8)
            return (found / np.linalg.norm(found)).astype(np.float32)

    monkeypatch.setattr(aligner, "load_aligner", lambda *_, **__: Pitches())
    sources = write_tones(tmp_path / "in", 60)
    found = run(sources, tmp_path / "out", aligner="pitches", p=0.1)
    assert found.summary["packed"] + sum(found.summary["dropped"].values()) == 60
    assert ShardSet(tmp_path / "out" / "shards").keys() == [
        row["key"] for row in rows(tmp_path / "out" / "clips.jsonl") if row["state"] == "packed"
    ]
    assert list((tmp_path / "out").glob("filtered-*/report.html"))
