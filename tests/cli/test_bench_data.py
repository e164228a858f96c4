import dataclasses
import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from auricle.bench import task as declarations
from auricle.bench.examples import load_examples
from auricle.bench.task import Task, load_task, tasks
from auricle.data import downloads as download
from auricle.data.label_tars import TarAudio

from .conftest import auricle
from .toy_layouts import TOYS, esc50, text, wave

# Tasks whose declaration may not name their layout yet.
LAYOUTS = {
    "asvspoof2015": "asvspoof2015",
    "fluentspeechcommands": "fluent_speech_commands",
    "vocalimitations": "vocal_imitations",
    "voxceleb1": "voxceleb1",
    "voxlingua33": "voxlingua107",
    "fsdkaggle2018": "fsdkaggle2018",
    "maestro": "maestro",
}


def with_layout(task: Task) -> Task:
    if task.layout is not None:
        return task
    field = "fold" if task.folds else task.split_field
    return dataclasses.replace(task, layout=LAYOUTS[task.name], split_field=field)


class Zenodo(http.server.ThreadingHTTPServer):
    """A server with records, that may break off."""

    pages: dict[str, bytes]
    requests: list[str]
    breaks_after: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, record: str, files: dict[str, bytes], md5: str | None = None, **metadata: Any) -> None:
        rows = []
        for name, body in files.items():
            digest = md5 or hashlib.md5(body, usedforsecurity=False).hexdigest()
            rows.append({"key": name, "size": len(body), "checksum": f"md5:{digest}"})
            self.pages[f"/api/records/{record}/files/{name}/content"] = body
        self.pages[f"/api/records/{record}"] = json.dumps({"metadata": metadata, "files": rows}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Zenodo)
        server.requests.append(self.path)
        if self.path not in server.pages:
            self.send_error(404)
            return
        body, start = server.pages[self.path], 0
        if span := self.headers.get("Range"):
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + server.breaks_after])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def zenodo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zenodo]:
    monkeypatch.setenv("no_proxy", "*")
    with Zenodo(("127.0.0.1", 0), Handler) as server:
        server.pages, server.requests, server.breaks_after = {}, [], 1 << 30
        monkeypatch.setattr(download, "ZENODO", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def a_tar(label: Any) -> bytes:
    sound, out = io.BytesIO(), io.BytesIO()
    soundfile.write(sound, [0.1, -0.1] * 200, 8_000, format="WAV")
    with tarfile.open(fileobj=out, mode="w:") as tar:
        for name, contents in (("a.wav", sound.getvalue()), ("a.json", json.dumps(label).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    return out.getvalue()


def esc50_record() -> dict[str, bytes]:
    return {f"wds-audio-fold-{fold}-000000.tar": a_tar({"label": fold}) for fold in range(1, 6)}


def test_a_record_is_downloaded_and_verified(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.put("14614287", esc50_record(), title="ESC-50 of X-ARES", license={"id": "cc-by-nc-4.0"})
    zenodo.breaks_after = 5_000  # of 10,240 bytes
    done = auricle("bench", "download", "esc50", "--to", tmp_path / "data")
    assert done.code == 0, done.err
    first, last = done.out.splitlines()
    assert "ESC-50 of X-ARES, licence cc-by-nc-4.0; 5 files of 0.00 GB" in first
    assert first.endswith(f"{zenodo.url}/records/14614287") and "5 files verified" in last
    assert len(load_examples(load_task("esc50"), tmp_path / "data" / "esc50")) == 5
    assert auricle("bench", "tasks", "--data", tmp_path / "data", "--suite", "xares").out.count("on disk") == 1
    zenodo.requests.clear()
    again = auricle("bench", "download", "esc50", "--to", tmp_path / "data", "--json")
    assert zenodo.requests == ["/api/records/14614287"]
    found, verified = again.records
    assert (found["state"], found["licence"], found["bytes_left"], found["files"]) == ("found", "cc-by-nc-4.0", 0, 5)
    assert found["bytes"] == sum(map(len, esc50_record().values()))
    assert (verified["state"], verified["files"]) == ("verified", sorted(esc50_record()))


def test_a_dry_run_downloads_nothing(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.put("14614287", esc50_record())
    done = auricle("bench", "download", "esc50", "--to", tmp_path / "data", "--dry-run")
    assert done.code == 0 and "licence not stated" in done.out and "verified" not in done.out
    assert zenodo.requests == ["/api/records/14614287"] and not (tmp_path / "data").exists()


def test_a_task_that_fails_stops_no_other(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.put("14614287", esc50_record())
    zenodo.put("14722524", {"ravdess_fold_0_0000000.tar": b"x" * 100}, md5="0" * 32)
    done = auricle("bench", "download", "maestro", "ravdess", "esc50", "--to", tmp_path, "--json")
    assert done.code == 1
    states = [(record["task"], record["state"]) for record in done.records]
    assert states == [
        ("maestro", "failed"),
        ("ravdess", "found"),
        ("esc50", "found"),
        ("ravdess", "failed"),
        ("esc50", "verified"),
    ]
    assert "answered 404" in done.err and "the record states 00000000" in done.err
    assert not list((tmp_path / "ravdess").iterdir())


def test_a_record_without_the_tars_of_the_task(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.put("14614287", {"esc50.zip": b"PK"})
    done = auricle("bench", "download", "esc50", "--to", tmp_path)
    assert done.code == 1 and "no tar wds-audio-fold-1-*.tar" in done.err
    zenodo.put("14614287", {})
    done = auricle("bench", "download", "esc50", "--to", tmp_path)
    assert done.code == 1 and "shows no files" in done.err


def test_tasks_of_one_record_share_its_files(zenodo: Zenodo, tmp_path: Path) -> None:
    files = {f"nsynth_{split}_0000000.tar": a_tar({"pitch": 3}) for split in ("train", "valid", "test")}
    zenodo.put("14725174", files)
    assert auricle("bench", "download", "nsynthinstument", "--to", tmp_path).code == 0
    zenodo.requests.clear()
    assert auricle("bench", "download", "nsynth_pitch", "--to", tmp_path).code == 0
    assert zenodo.requests == ["/api/records/14725174"]
    assert {path.name for path in (tmp_path / "nsynth_pitch").iterdir()} == set(files)


def test_without_a_network_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "ZENODO", "http://127.0.0.1:9")  # the discard port: nobody listens
    done = auricle("bench", "download", "esc50", "--to", tmp_path / "data")
    assert done.code == 1 and done.out == "" and not (tmp_path / "data").exists()
    assert "cannot be reached" in done.err and "is there a network?" in done.err
    assert f"by hand, the files of http://127.0.0.1:9/records/14614287 belong into {tmp_path}/data/esc50" in done.err


def test_a_full_disk_is_seen_before_anything_comes(
    zenodo: Zenodo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    zenodo.put("14614287", esc50_record())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 1))
    done = auricle("bench", "download", "esc50", "--to", tmp_path / "new" / "data")
    assert done.code == 1 and f"are free in {tmp_path}; make room" in done.err
    assert zenodo.requests == ["/api/records/14614287"] and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("esc-50", "Did you mean 'esc50'"),
        ("esc10", "no official audio tars; fetch its data set from https://github.com/karolpiczak/ESC-50"),
        ("liveenv", "no official audio tars; bring a manifest of your own"),
        ("hear_esc50", "an archive for each task of HEAR"),
    ],
)
def test_what_cannot_be_downloaded_is_wrong_usage(name: str, message: str, zenodo: Zenodo, tmp_path: Path) -> None:
    done = auricle("bench", "download", "esc50", name, "--to", tmp_path)
    assert done.code == 2 and message in done.err and not zenodo.requests


def test_every_public_task_has_a_toy() -> None:
    assert set(TOYS) == {task.name for task in [*tasks("xares"), *tasks("challenge")]}


@pytest.mark.parametrize("name", sorted(TOYS))
def test_prepared_tars_are_the_task_of_the_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sounds in the same splits with the same labels, for every public task."""
    task = with_layout(load_task(name))
    monkeypatch.setattr(declarations, "load_task", lambda _: task)
    TOYS[name](tmp_path / "in")
    done = auricle("bench", "prepare", name, "--from", tmp_path / "in", "--to", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    before, after = load_examples(task, tmp_path / "in"), load_examples(task, tmp_path / "out" / name)
    assert not before.refused and not after.refused
    rule = task.label.events if task.kind == "frame" else task.label.values
    assert [(x.split, rule(x.label)) for x in before] == [(x.split, rule(x.label)) for x in after]
    assert all(isinstance(example.audio, TarAudio) for example in after)
    for one, other in zip(before, after, strict=True):
        source = one.source()
        assert isinstance(source, Path)
        if source.suffix == ".au":  # no format of the tars: FLAC, sample for sample
            decoded, written = (soundfile.read(place, dtype="int16") for place in (source, io.BytesIO(other.source())))
            assert decoded[1] == written[1] and (decoded[0] == written[0]).all()
        else:
            assert source.read_bytes() == other.source()
    (record,) = done.records
    assert record["sounds"] == {split: len(examples) for split, examples in before.by_split.items()}
    assert sorted(record["files"]) == sorted(path.name for path in (tmp_path / "out" / name).iterdir())


def test_labels_are_written_as_xares_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "esc50": {"label": 0, "category": "dog", "fold": 1, "esc10": "False"},
        "desed": [{"onset": 0.0, "offset": 10.0, "label": "Dog,Speech"}],
        "clotho": {f"caption_{n}": caption for n, caption in enumerate(("Rain, falls", "é", "c", "d", "e"), 1)},
        "maestro": [{"start": 0.0, "end": 0.5, "note": 60}],
    }
    for name, label in wanted.items():
        task = with_layout(load_task(name))
        with monkeypatch.context() as patched:
            patched.setattr(declarations, "load_task", lambda _, task=task: task)
            TOYS[name](tmp_path / name)
            assert auricle("bench", "prepare", name, "--from", tmp_path / name, "--to", tmp_path / "out").code == 0
        with tarfile.open(sorted((tmp_path / "out" / name).glob(task.tars[task.splits[0]]))[0]) as tar:
            member = tar.extractfile(next(each for each in tar if each.name.endswith(".json")))
            assert member is not None and json.loads(member.read()) == label


def test_prepared_names_are_kept_as_a_fact(tmp_path: Path) -> None:
    TOYS["speechcommandsv1"](tmp_path / "in")
    assert auricle("bench", "prepare", "speechcommandsv1", "--from", tmp_path / "in", "--to", tmp_path).code == 0
    found = load_examples(load_task("speechcommandsv1"), tmp_path / "speechcommandsv1")
    assert [example.label["id"] for example in found] == [f"bed/{speaker}_nohash_0" for speaker in "abc"]


def test_incomplete_data_is_prepared_only_on_demand(tmp_path: Path) -> None:
    esc50(tmp_path / "in")
    for number in (0, 49):
        (tmp_path / f"in/audio/1-{number}-A-{number}.wav").rename(tmp_path / f"in/audio/moved-{number}.wav")
    prepare = ["bench", "prepare", "esc50", "--from", tmp_path / "in", "--to", tmp_path]
    done = auricle(*prepare)
    assert done.code == 1 and "no examples of 1" in done.err and not (tmp_path / "esc50").exists()
    (tmp_path / "in/audio/moved-0.wav").rename(tmp_path / "in/audio/1-0-A-0.wav")
    done = auricle(*prepare)
    assert done.code == 1 and "1 clips cannot be taken: 1/1-49-A-49: no audio at" in done.err
    assert "--partial" in done.err and not (tmp_path / "esc50").exists()
    done = auricle(*prepare, "--partial", "--json")
    assert done.code == 1 and "left out: 1/1-49-A-49" in done.err
    (record,) = done.records
    assert record["sounds"] == {"1": 1, "2": 2, "3": 2, "4": 2, "5": 2}
    assert [left["name"] for left in record["left_out"]] == ["1/1-49-A-49"]
    assert len(load_examples(load_task("esc50"), tmp_path / "esc50")) == 9


def test_a_manifest_can_be_prepared(tmp_path: Path) -> None:
    wave(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    facts = [("a.wav", "train", "Inside"), ("b.wav", "test", "Outside"), ("c.wav", "spare", "Inside")]
    rows = [{"audio": name, "split": split, "labels": label} for name, split, label in facts]
    text(tmp_path / "in", "manifest.jsonl", *map(json.dumps, rows))
    done = auricle("bench", "prepare", "inside_outside_car", "--from", tmp_path / "in", "--to", tmp_path)
    assert done.code == 0 and "2 clips (inside_outside_car_train 1, inside_outside_car_test 1) in 2 tars" in done.out
    assert "not of the task: 1 clips, split is spare" in done.out
    assert len(load_examples(load_task("inside_outside_car"), tmp_path / "inside_outside_car")) == 2


def test_prepare_does_not_overwrite(tmp_path: Path) -> None:
    esc50(tmp_path / "in")
    prepare = ["bench", "prepare", "esc50", "--to", tmp_path, "--from"]
    assert auricle(*prepare, tmp_path / "in").code == 0
    done = auricle(*prepare, tmp_path / "in")
    assert done.code == 1 and "exists already" in done.err
    done = auricle(*prepare, tmp_path / "esc50")
    assert done.code == 2 and "holds the audio tars of 'esc50' already" in done.err
    text(tmp_path / "esc50", "manifest.csv", "audio")
    done = auricle(*prepare, tmp_path / "in")
    assert done.code == 2 and "manifest.csv, which is read before any tars" in done.err


def test_tars_that_read_back_as_another_task_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is written for fold 2 is read for fold 1 as well.
    patterns = {"1": "fold*.tar", "2": "fold-2-*.tar", "3": "c-*.tar", "4": "d-*.tar", "5": "e-*.tar"}
    odd = dataclasses.replace(load_task("esc50"), tars=patterns)
    monkeypatch.setattr(declarations, "load_task", lambda _: odd)
    esc50(tmp_path / "in")
    done = auricle("bench", "prepare", "esc50", "--from", tmp_path / "in", "--to", tmp_path)
    assert done.code == 1 and "read back as another task" in done.err


@pytest.mark.parametrize(("name", "message"), [("esc-50", "Did you mean"), ("hear_esc50", "has no audio tars")])
def test_what_cannot_be_prepared_is_wrong_usage(name: str, message: str, tmp_path: Path) -> None:
    done = auricle("bench", "prepare", name, "--from", tmp_path, "--to", tmp_path)
    assert done.code == 2 and message in done.err
