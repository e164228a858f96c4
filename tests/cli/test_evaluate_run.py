"""Tasks put to a model from the command line."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from auricle.evaluate.task import language_tasks

from ..evaluate.fake_model import FakeModel
from .conftest import MODEL, auricle, write_noise

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four clips in an official file of predictions."""
    rows = []
    for at, label in enumerate(["dog", "rain", "dog", "rain"]):
        write_noise(tmp_path / "data" / f"{at}.wav", 0.5, at)
        rows.append({"dataset_name": "Set", "audio": f"{at}.wav", "label": [label], "model_output": "x"})
    return write_rows(tmp_path / "data" / "official.jsonl", rows)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded: answers cost nothing, and differ by the model's name."""
    monkeypatch.setattr("auricle.load", lambda name, **opened: FakeModel(fingerprint=sha256(name.encode()).hexdigest()))


def run(source: Path, out: Path, *more: object, task: str = "vggsound") -> Any:
    command = ["--task", f"{task}={source}", "-o", out, "--model", MODEL, "--max-new-tokens", 3]
    return auricle("evaluate", "run", *command, *more)


def test_a_run_is_reported_and_scored_as_evaluate_score_scores_it(source: Path, tmp_path: Path) -> None:
    done = run(source, tmp_path / "out", "--protocol", "both", "--json")
    (record,) = done.records
    assert done.code == 0 and record["questions"] == record["answered"] == record["asked"] == 4 and not record["failed"]
    folder = Path(record["folder"])
    assert folder.name == "vggsound" and folder.parent.parent == tmp_path / "out"
    alone = auricle("evaluate", "score", folder / "answers.jsonl", "-t", "tagging", "--protocol", "both", "--json")
    assert alone.records == [record["scores"]["compat"], record["scores"]["strict"]]

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = run(source, tmp_path / "out", "--protocol", "both")
    assert again.code == 0 and "4 of 4 answered, 0 generated" in again.out and "accuracy" in again.out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("fake")
def test_shares_only_generate_and_other_prompts_and_lengths_generate_again(source: Path, tmp_path: Path) -> None:
    own = [run(source, tmp_path / "out", "--share", f"{at}/2", "--json").records[0] for at in range(2)]
    assert [record["folder"] for record in own] == [None, None] and sum(record["asked"] for record in own) == 4
    assert run(source, tmp_path / "out", "--json").records[0]["asked"] == 0
    changed = run(source, tmp_path / "out", "--prompt", "What?", "--limit", 2, "--json").records[0]
    assert changed["asked"] == changed["questions"] == 2
    assert json.loads((Path(changed["folder"]) / "run.json").read_text())["prompts"] == {"": "What?"}


def test_what_fails_is_named_and_the_others_go_on(source: Path, tmp_path: Path) -> None:
    (source.parent / "1.wav").unlink()
    (source.parent / "2.wav").write_bytes((source.parent / "2.wav").read_bytes()[:9000])
    done = run(source, tmp_path / "out", "--task", f"nsynth={tmp_path}/absent")
    assert done.code == 1 and "1.wav: no such file" in done.err and "2.wav: partly processed" in done.err
    assert "nsynth" in done.err and "absent: does not exist" in done.err and "not scored" in done.err
    (answers,) = (tmp_path / "out").glob("*/vggsound/answers.jsonl")
    assert answers.read_text().count('"model_output": null') == 1
    scored = run(source, tmp_path / "out", "--missing", "worst", "--json")
    assert scored.code == 1 and scored.records[0]["scores"]["strict"]["counts"]["unanswered"] == 1
    write_noise(source.parent / "1.wav", 0.5, 1)
    assert run(source, tmp_path / "out").code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "2/2"], "expected K/N"),
        (["--task", "vggsound"], "expected NAME=SOURCE"),
        (["--task", "vgsound=x"], "vggsound"),
        (["--task", "vggsound=x"], "twice"),
        (["--prompt", "{question}"], "question"),
        (["--missing", "best"], "expected one of error, worst"),
        (["--protocol", "loose"], "expected one of strict"),
        (["--scoring-rule", "loose"], "expected one of strict"),
    ],
)
def test_wrong_usage_is_refused_before_any_request(
    source: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run(source, tmp_path / "out", *arguments)
    assert done.code == 2 and message in done.err and not (tmp_path / "out").exists()


@pytest.mark.usefixtures("fake")
def test_damaged_answers_are_reported_and_generated_again(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(source, tmp_path / "out", "--cache", cache)
    (file,) = cache.glob("*.jsonl")
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([lines[0][:-9], *lines[1:]]))
    done = run(source, tmp_path / "out", "--cache", cache)
    assert done.code == 0 and "line 1" in done.err and "skipped" in done.err and "1 generated" in done.out


# The command with a model that costs nothing, its workers forked, as to start them anew takes seconds each.
CHILD = """
import multiprocessing, os, signal, sys
sys.path.insert(0, sys.argv[1])
import auricle
from auricle.cli.main import main
from pathlib import Path
from tests.evaluate.fake_model import FakeModel

log, deadly = Path(sys.argv[2]), sys.argv[3]
class Mortal(FakeModel):
    def answer(self, content, prompts):
        if multiprocessing.parent_process() and self.requests[-1][0] == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(content, prompts)
fork = multiprocessing.get_context("fork")
multiprocessing.get_context = lambda how: fork
auricle.load = lambda **opened: Mortal(log=log / str(os.getpid()))
sys.argv[1:] = sys.argv[4:]
main()
"""


def test_workers_share_the_questions_and_those_of_a_dead_one_are_answered(
    source: Path, tmp_path: Path, warm_python: str
) -> None:
    for deadly, code in (("none", 0), ("2.wav", 0)):
        log, out = tmp_path / deadly / "log", tmp_path / deadly / "out"
        log.mkdir(parents=True)
        command = [warm_python, "-c", CHILD, str(Path(__file__).parents[2]), str(log), deadly]
        command += ["evaluate", "run", "-t", f"vggsound={source}", "-o", str(out), "--workers", "2"]
        done = subprocess.run([*command, "--batch-size", "1"], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        requests = [line for file in log.iterdir() for line in file.read_text().splitlines()]
        if deadly == "none":
            assert sorted(requests) == sorted(set(requests)) and len(requests) == 4 and "0 generated" in done.stdout
            assert len(list(log.iterdir())) == 2 and not done.stderr
        else:
            assert (
                "ended with -9" in done.stderr
                and len(requests) > len(set(requests)) == 4
                and " 0 generated" not in done.stdout
            )
    first, second = (sorted((tmp_path / name / "out" / "fake" / "vggsound").iterdir()) for name in ("none", "2.wav"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second] and len(first) == 3


def test_the_small_model_transcribes_examples(tmp_path: Path) -> None:
    rows = [
        {"id": name, "audio": str(EXAMPLES / f"{name}.ogg"), "text": "one", "lang": "en"} for name in ("voice", "alarm")
    ]
    manifest = write_rows(tmp_path / "manifest.jsonl", rows)
    command = ["evaluate", "run", "-t", f"digits={manifest}", "-o", tmp_path / "out", "--json"]
    done = auricle(*command)
    assert done.code == 0, done.out
    (record,) = done.records
    assert (
        record["model"] == "auricle-tiny"
        and record["answered"] == 2
        and record["folder"].endswith("auricle-tiny/digits")
    )


def test_tasks_are_listed() -> None:
    listed = auricle("evaluate", "tasks")
    assert listed.code == 0 and "librispeech_clean" in listed.out and "Transcribe the speech into text" in listed.out
    records = auricle("evaluate", "tasks", "--suite", "midashenglm", "--json").records
    assert [record["name"] for record in records] == [task.name for task in language_tasks("midashenglm")]
    assert records[0]["published"]["MiDashengLM-7B"] == 3.7
