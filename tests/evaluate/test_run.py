"""Runs that were killed, split or repeated end with the same bytes, and with the scores of their files."""

import dataclasses
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle.audio.decode import as_clip
from auricle.data.acoustic_fingerprint import acoustic_fingerprint, as_rows
from auricle.errors import ConfigError, DataError
from auricle.evaluate.answer_cache import AnswerCache
from auricle.evaluate.corruptions import wav_bytes
from auricle.evaluate.questions import read_questions
from auricle.evaluate.results import find_results
from auricle.evaluate.run import Evaluator, Share, TaskRun, read_share, run_folder, run_task
from auricle.evaluate.score_answers import read_synonyms
from auricle.evaluate.scores import Scored, ScoringConfig
from auricle.evaluate.task import load_language_task
from auricle.weights.cards import TrainingClips
from auricle.weights.sentence_encoders import SentenceEncoder, load_sentence_encoder

from ..weights.toy_sentences import write_encoder
from .fake_model import TASK, FakeModel, question, questions
from .toy_runs import score_file, score_mecat_file

BOTH: Any = ("compat", "strict")
FILES = ("answers.jsonl", "compat.json", "run.json", "strict.json")


def run(
    out: Path, chosen: Any = None, model: FakeModel | None = None, *, scoring: ScoringConfig | None = None, **more: Any
) -> TaskRun:
    with AnswerCache(out / "cache") as cache:
        evaluator = Evaluator(
            model=model or FakeModel(), task=TASK, scoring=scoring or ScoringConfig(), cache=cache, batch_size=8
        )
        return run_task(evaluator, questions(12) if chosen is None else chosen, out, **more)


def scores_of(done: TaskRun, scoring: ScoringConfig | None = None, task: Any = TASK) -> Scored:
    """Without files, by a model whose answers are known."""
    return Evaluator(model=FakeModel(), task=task, scoring=scoring or ScoringConfig()).evaluate(done.questions).scored


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_the_files_of_a_run_and_their_scores(tmp_path: Path) -> None:
    done = run(tmp_path, source="toy.jsonl", scoring_rules=BOTH)
    folder = tmp_path / "fake" / "toy"
    assert done.folder == folder and tuple(contents(folder)) == FILES
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [
        ["dataset_name", "audio", "prompt", "model_output", "model_name", "label"] for _ in questions(12)
    ]
    assert [(row["audio"], row["prompt"]) for row in rows] == [(q.audio.name, q.prompt) for q in questions(12)]
    for rule in BOTH:
        alone = score_file(folder / "answers.jsonl", "tagging", rule)
        assert (folder / f"{rule}.json").read_text() == alone.to_json() == done.scored[rule].to_json()
    stored = json.loads((folder / "run.json").read_text())
    assert stored["counts"]["questions"] == 16 and stored["counts"]["sounds"] == 12 and stored["source"] == "toy.jsonl"
    assert stored["decoding"]["max_new_tokens"] == TASK.max_new_tokens and stored["failed"] == []

    before, again = contents(folder), FakeModel()
    run(tmp_path, model=again, source="toy.jsonl", scoring_rules=BOTH)
    assert contents(folder) == before and not again.requests


# For each moment a process that dies by SIGKILL: before an answer, in the midst of writing one, or before a file is in
# its place. Prints its exit code, its requests, and how many answers are kept.
CHILD = """
import json, os, signal, sys, traceback
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from auricle.evaluate import answer_cache
from auricle.evaluate import run as lm_run
from tests.evaluate.fake_model import TASK, FakeModel, questions

out, write, whole = Path(sys.argv[2]), answer_cache._write, lm_run.write_bytes

def run(where, number):
    count = 0
    def comes(what):
        nonlocal count
        count += what == where
        return what == where and count > number
    def die():
        os.kill(os.getpid(), signal.SIGKILL)
    class Mortal(FakeModel):
        def answer(self, content, prompts):
            die() if comes("answer") else None
            return super().answer(content, prompts)
    def half(file, content):
        if comes("write"):
            file.write(content[: len(content) // 2])
            die()
        write(file, content)
    def placed(path, content):
        die() if comes(path.name) else None
        whole(path, content)
    answer_cache._write, lm_run.write_bytes = half, placed
    with answer_cache.AnswerCache(out / "cache") as cache:
        evaluator = lm_run.Evaluator(model=Mortal(log=out / "requests"), task=TASK, cache=cache, batch_size=3)
        lm_run.run_task(evaluator, questions(12), out, scoring_rules=("compat", "strict"))

for moment in sys.argv[3:]:
    where, number = moment.split()
    (out / "requests").write_text("")
    process = os.fork()
    if not process:
        try:
            run(where, int(number))
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    cache = answer_cache.AnswerCache(out / "cache")
    print(json.dumps([code, (out / "requests").read_text().splitlines(), len(cache), cache.damaged]))
"""


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, warm_python: str) -> None:
    run(tmp_path / "whole", scoring_rules=BOTH)
    out = tmp_path / "out"
    out.mkdir()
    moments = ["answer 0", "answer 2", "write 0", "write 4", "answer 4", "run.json 0", "answers.jsonl 0"]
    moments += ["compat.json 0", "strict.json 0", "nowhere 0"]
    command = [warm_python, "-c", CHILD, str(Path(__file__).parents[2]), str(out), *moments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, lines = 0, [json.loads(line) for line in done.stdout.splitlines()]
    for moment, (code, requests, kept, damaged) in zip(moments, lines, strict=True):
        assert code == (0 if moment == "nowhere 0" else -signal.SIGKILL) and not damaged, (moment, done.stderr)
        # At most a batch of three clips, each with two questions at most, is lost.
        assert before <= kept and 0 <= len(requests) - (kept - before) <= 6, moment
        before = kept
    assert [len(requests) for _, requests, _, _ in lines[6:]] == [0, 0, 0, 0] and before == 16
    assert contents(out / "fake" / "toy") == contents(tmp_path / "whole" / "fake" / "toy")


def test_shares_and_the_run_that_collects_them_are_one_run(tmp_path: Path) -> None:
    run(tmp_path / "whole", scoring_rules=BOTH)
    out, generated = tmp_path / "out", 0
    for share in Share(0, 2).split(1) + Share(1, 2).split(2):
        model = FakeModel()
        part = run(out, model=model, share=share)
        assert part.folder is None and not part.scored and 0 < model.generated < 16
        assert not (out / "fake").exists()
        generated += model.generated
    last = FakeModel()
    run(out, model=last, scoring_rules=BOTH)
    assert generated == 16 and not last.requests
    assert contents(out / "fake" / "toy") == contents(tmp_path / "whole" / "fake" / "toy")


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_every_clip_is_in_one_share_and_shares_split_into_parts_of_themselves(of: int) -> None:
    names = [*(f"{at}.wav" for at in range(40)), "\udcff.wav"]
    for name in names:
        own = [share for share in Share(0, 1).split(of) if share.has(name)]
        assert len(own) == 1 and [part.has(name) for part in own[0].split(3)].count(True) == 1
    assert {read_share(f"{at}/{of}") for at in range(of)} == set(Share(0, 1).split(of))


@pytest.mark.parametrize("text", ["", "4/4", "1", "0/0", "-1/4", "1/4/2", "a/b", "0/9999999"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected K/N"):
        read_share(text)


def test_answers_that_are_missing_leave_the_others_written_and_unscored_or_count_as_wrong(tmp_path: Path) -> None:
    chosen = [*questions(5), question("bad.wav", content=b"broken"), question("half.wav", content=b"cut")]
    run(tmp_path, scoring_rules=BOTH)
    done = run(tmp_path, chosen, scoring_rules=BOTH)
    folder = tmp_path / "fake" / "toy"
    assert done.failed == {"bad.wav": "bad.wav: no audio in it"} and done.partial == ["half.wav"]
    # Scores of other answers are gone too.
    assert not done.scored and tuple(contents(folder)) == ("answers.jsonl", "run.json")
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [row["audio"] for row in rows if row["model_output"] is None] == ["bad.wav"] and len(rows) == 9
    stored = json.loads((folder / "run.json").read_text())
    assert stored["failed"] == [{"audio": "bad.wav", "error": "bad.wav: no audio in it"}]
    assert stored["heard_in_part"] == ["half.wav"] and stored["counts"]["answered"] == 8

    worst = run(tmp_path, chosen, scoring=ScoringConfig(missing="worst"))
    assert worst.scored["strict"].counts["unanswered"] == 1 and worst.scored["strict"].headline.n == 9  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"1 clips have no answer: bad\.wav: no audio"):
        scores_of(done)


def test_scores_stay_beside_the_answers_they_are_of(tmp_path: Path) -> None:
    run(tmp_path, scoring_rules=["compat"])
    run(tmp_path, scoring_rules=["strict"])
    assert tuple(contents(tmp_path / "fake" / "toy")) == FILES
    run(tmp_path, questions(9), scoring_rules=["strict"])
    assert tuple(contents(tmp_path / "fake" / "toy")) == ("answers.jsonl", "run.json", "strict.json")


def test_scores_without_files_are_those_of_the_files(tmp_path: Path) -> None:
    done = run(tmp_path, scoring_rules=BOTH, scoring=ScoringConfig(seed=3))
    for rule in BOTH:
        found = scores_of(done, ScoringConfig(scoring_rule=rule, seed=3))
        assert found.to_json() == (tmp_path / "fake" / "toy" / f"{rule}.json").read_text()
    other = [question("a", dataset_name="One"), question("b", dataset_name="Two")]
    with pytest.raises(DataError, match=r"^toy: mixes the labels"):
        scores_of(run(tmp_path, other, scoring_rules=[]))


def test_the_tasks_group_and_synonyms_decide(tmp_path: Path) -> None:
    chosen = [question(f"{at}", speaker=f"{at % 2}") for at in range(12)]
    task = dataclasses.replace(TASK, group_by="speaker", synonyms={"dog": ("hound",)})
    done = run_task(Evaluator(model=FakeModel(), task=task), chosen, tmp_path)
    path = tmp_path / "fake" / "toy" / "answers.jsonl"
    alone = score_file(path, "tagging", group_by="speaker", synonyms={"dog": ("hound",)})
    assert done.scored["strict"] == alone


def test_names_that_are_no_names_of_files_are_kept(tmp_path: Path) -> None:
    chosen = [question("\udcff.wav"), question("..\u2028/ü.wav", text="x\nx")]
    odd = FakeModel(model="../org/model ü")
    done = run(tmp_path, chosen, odd)
    assert done.folder is not None and done.folder.parent.parent == tmp_path
    rows = (done.folder / "answers.jsonl").read_bytes().decode().split("\n")
    assert [json.loads(row)["audio"] for row in rows[:-1]] == ["\udcff.wav", "..\u2028/ü.wav"]
    assert set(done.scored["strict"].items["accuracy"]) == {"\udcff.wav", "..\u2028/ü.wav"}
    assert run_folder(tmp_path, "a/b", TASK) != run_folder(tmp_path, "a-b", TASK)


@pytest.fixture
def encoder(tmp_path: Path) -> SentenceEncoder:
    return load_sentence_encoder(str(write_encoder(tmp_path / "encoder")))


@pytest.mark.parametrize("kind", ["caption", "qa"])
def test_mecat_is_scored_against_the_references_of_its_questions(
    tmp_path: Path, encoder: SentenceEncoder, kind: str
) -> None:
    references = tmp_path / "references"
    (references / "audio").mkdir(parents=True)
    for domain in ("S00", "SMA"):
        clips: dict[str, Any] = {}
        for at in range(3):
            clip = f"{domain}_{at}_0_10"
            (references / "audio" / f"{clip}.flac").write_bytes(clip.encode())
            if kind == "caption":
                clips[clip] = {name: [f"a {name} dog", "None"] for name in ("long", "speech")} | {"domain": domain}
            else:
                clips[f"{clip}_{at:08x}"] = {"category": "direct_perception", "difficulty": "basic", "domain": domain}
                clips[f"{clip}_{at:08x}"] |= {"question": f"What is {at}?", "answer": "a dog barks"}
        (references / f"{domain}.jsonl").write_text("".join(json.dumps({k: v}) + "\n" for k, v in clips.items()))
    task = load_language_task(f"mecat_{kind}")
    chosen = read_questions(task, references)
    model = FakeModel()
    evaluator = Evaluator(model=model, task=task, scoring=ScoringConfig(encoder=lambda: encoder))
    done = run_task(evaluator, chosen, tmp_path)
    folder = tmp_path / "fake" / task.name
    assert len(model.requests) == 6 and model.generated == len(chosen)
    alone = score_mecat_file(folder / "answers.jsonl", references, encoder=lambda: encoder)
    assert (folder / "strict.json").read_text() == alone.to_json()
    assert done.scored["strict"].to_json() == evaluator.evaluate(chosen).scored.to_json() == alone.to_json()

    few = [each for each in chosen if each.row["domain"] == "SMA"]
    fewer = run_task(evaluator, few, tmp_path, scoring_rules=["compat"])
    assert fewer.scored["compat"].counts["references"] == 3 and not (folder / "strict.json").exists()
    assert [path.name for path in (folder / "references").iterdir()] == ["SMA.jsonl"]


def test_synonyms_are_beside_the_answers_they_score(tmp_path: Path) -> None:
    task = dataclasses.replace(TASK, synonyms={"dog": ("hound",)})
    done = run_task(Evaluator(model=FakeModel(), task=task), questions(12), tmp_path)
    assert done.folder is not None
    alone = score_file(done.folder / "answers.jsonl", "tagging", synonyms=read_synonyms(done.folder / "synonyms.json"))
    assert alone.to_json() == done.scored["strict"].to_json()
    assert alone.settings["synonyms_sha256"]


def test_clips_that_the_model_was_trained_on_are_named(tmp_path: Path) -> None:
    def burst(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        parts = [np.convolve(rng.standard_normal(1280), rng.standard_normal(24), "same") for _ in range(20)]
        return wav_bytes((0.05 * np.concatenate(parts)).astype(np.float32))

    chosen = [question(f"{seed}.wav", content=burst(seed)) for seed in range(4)]
    chosen.append(question("silence.wav", content=wav_bytes(np.zeros(16_000, np.float32))))
    known = [found for seed in (1, 3, 7) if (found := acoustic_fingerprint(as_clip(burst(seed)).waveform))]
    training = TrainingClips(sets=("noises",), rows=as_rows(known))
    done = run_task(Evaluator(model=FakeModel(), task=TASK, training=training), chosen, tmp_path, source="toy")
    stored = json.loads((tmp_path / "fake" / "toy" / "run.json").read_text())["contamination"]
    assert stored == done.contamination
    assert stored == {"known": True, "sets": ["noises"], "sounds": 2, "share": 0.4, "items": ["1.wav", "3.wav"]}
    assert find_results(tmp_path)[0].trained_share == 0.4


def test_nothing_is_claimed_of_a_model_that_states_nothing(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.contamination == {"known": False, "sets": [], "sounds": 0, "share": 0.0, "items": []}


@pytest.mark.parametrize("found", [None, [], "x", {}, {"share": "0.5"}, {"share": None}, {"share": -1}, {"share": 1e9}])
def test_the_share_in_an_untrusted_run_is_one(found: Any, tmp_path: Path) -> None:
    run(tmp_path, source="toy")
    file = tmp_path / "fake" / "toy" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "contamination": found}))
    assert 0 <= find_results(tmp_path)[0].trained_share <= 1
