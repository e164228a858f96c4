"""The page on answers: every figure with its provenance, players, and untrusted text that stays text."""

import base64
import json
import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from auricle.audio.decode import decode
from auricle.errors import DataError, MissingExtra, OutputError
from auricle.evaluate import answer_examples
from auricle.evaluate.mecat import CATEGORIES, GROUPS, caption_score, question_score
from auricle.evaluate.report import report_content, write_lm_report
from auricle.evaluate.results import by_model, find_results, published_answers
from auricle.evaluate.scores import RULES, Scored
from auricle.evaluate.tables import mecat_domains, task_rows
from auricle.evaluate.task import language_tasks
from auricle.evaluate.worst_answers import audio_of, worst_answers
from auricle.metrics.intervals import Score

from ..pages.reading import HOSTILE, Page
from .toy_runs import rows_of, write_run

LABELS = ["cat", "dog", "rain", "sea"]


def wav(path: Path, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, round(16_000 * seconds))
    soundfile.write(path, noise, 16_000, format="WAV")
    return path


def events(*answers: str) -> list[dict[str, Any]]:
    return rows_of("events", answers, [{"label": [label]} for label in LABELS])


def runs(out: Path) -> Path:
    """Two models; the second is worse on one task and alone on another."""
    write_run(out, "good", "events", events("cat", "dog", "rain", "sea"), scoring_rules=("strict", "compat"))
    write_run(out, "bad", "events", events("cat", "wolf", "snow", "sea"), scoring_rules=("strict", "compat"))
    gender = rows_of("gender", ["male", "female"], [{"label": ["male"]}, {"label": ["male"]}])
    write_run(out, "bad", "gender", gender)
    return out


def page_of(out: Path, folder: Path, **options: Any) -> Page:
    options = {"figures": False, **options}
    paths = write_lm_report(find_results(out), folder, **options)
    page = Page(paths[0].read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Path]:
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("runs")
    return page_of(runs(out), out / "report", figures=True), out


def test_the_page_needs_no_other_file(plain: tuple[Page, Path]) -> None:
    page, _ = plain
    assert not page.tags & {"script", "img", "link", "iframe", "form"}
    (policy,) = [value for _, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; media-src data:"
    for tag, name, value in page.attributes:
        assert not name.startswith("on") and (name != "src" or value.startswith("data:audio/mpeg;base64,"))
        assert "http" not in value or name.startswith("xmlns"), (tag, name, value)
        assert name not in ("href", "xlink:href") or value.startswith("#")


def test_the_figures_are_there(plain: tuple[Page, Path]) -> None:
    page, out = plain
    assert (out / "report" / "tasks.png").read_bytes().startswith(b"\x89PNG")
    assert "svg" in page.tags and "Scoring rule strict. Each axis: one task" in page.text


def test_scores_have_intervals_and_the_best_is_marked(plain: tuple[Page, Path]) -> None:
    html = (plain[1] / "report" / "report.html").read_text(encoding="utf-8")
    assert re.search(r'<td class="n best">100\.0</td><td class="interval best">51\.0 to 100\.0</td>', html)
    assert re.search(r'<td class="n">50\.0</td><td class="interval">[\d.]+ to [\d.]+</td>', html)
    assert "sound · accuracy · n\u00a0=\u00a04</small>" in html
    row = next(line for line in html.split("\n") if "Speaker&#39;s gender" in line and "accuracy" in line)
    assert "best" not in row and "–" in row  # a model alone is not the best of two


def test_the_provenance_is_shown(plain: tuple[Page, Path]) -> None:
    text = plain[0].text
    digest = sha256((plain[1] / "bad" / "events" / "answers.jsonl").read_bytes()).hexdigest()
    for part in (
        "tag-whole-words version 2",
        "tag-substring version 1",
        digest,
        sha256(b"bad").hexdigest(),
        '"seed": 0',
    ):
        assert part in text
    assert "No clip is known to have failed" in text


def test_worst_answers_of_all_models_are_together(plain: tuple[Page, Path]) -> None:
    text = plain[0].text
    worst = text[text.index("Worst answers") : text.index("Failures")]
    assert "1.wav Reference dog Prompt Tell events. bad wrong wolf good right dog" in worst
    assert "2.wav Reference rain" in worst and "0.wav" not in worst and "clip not found" in worst
    assert worst.count("Sound events") == 1  # by one protocol


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_text_stays_text(text: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    row = {
        "dataset_name": text,
        "audio": text,
        "prompt": text,
        "model_output": f"{text} zz",
        "label": [f"{text} zz yy"],
        text: text,
    }
    facts = {
        "failed": [{"audio": text, "error": text}, text, {"audio": [text]}],
        "heard_in_part": [text, {"a": text}],
        "source": text,
        "prompts": {text: text},
    }
    path = write_run(tmp_path, "m", "events", [row], run={"model": text, **facts}, group_by=text)
    scored = json.loads((path / "events" / "strict.json").read_text())
    for name in ("counts", "settings", "data"):
        scored[name][text] = 1
    scored["version"] = text
    (path / "events" / "strict.json").write_text(json.dumps(scored))
    page = page_of(tmp_path, tmp_path / "report", figures=True, audio=[tmp_path])
    assert not page.tags & {"script", "img", "iframe", "a"}
    assert not any(name.startswith("on") or "javascript" in value for _, name, value in page.attributes)
    assert not set("\u202e\x1b") & set(page.text)
    visible = " ".join(text.replace("\u202e", "\ufffd").replace("\x1b", "\ufffd").replace("\n", "\ufffd").split())
    assert page.text.count(visible) > 8


def test_failures_are_shown(tmp_path: Path) -> None:
    facts = {"failed": [{"audio": "x.wav", "error": "x.wav: is no audio"}], "heard_in_part": ["y.wav"]}
    rows = events("cat", "dog", "rain", "sea")
    rows[0]["model_output"] = None
    write_run(tmp_path, "m", "events", rows, run=facts, scoring_rules=("strict", "compat"))
    text = page_of(tmp_path, tmp_path / "report").text
    for part in ("x.wav failed: x.wav: is no audio", "y.wav partly processed", "1 without an answer, counted as wrong"):
        assert text.count(part) == 1


def test_other_items_are_not_ranked(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "events", events("cat", "dog", "rain", "sea"))
    write_run(tmp_path, "b", "events", events("cat", "dog", "rain", "sea")[:3])
    (row,) = task_rows(by_model(find_results(tmp_path)))
    assert not row.is_same and row.best == []
    assert "not the same items or tools" in page_of(tmp_path, tmp_path / "report").text


def test_models_of_one_name_have_different_labels(tmp_path: Path) -> None:
    for place, fingerprint in (("a", "1" * 64), ("b", "2" * 64)):
        facts = {"model": "m", "fingerprint": fingerprint}
        write_run(tmp_path, place, "events", events(*LABELS), run=facts)
    assert list(by_model(find_results(tmp_path))) == ["m (11111111)", "m (22222222)"]
    write_run(tmp_path, "c", "events", events(*LABELS), run={"model": "m", "fingerprint": "1" * 64})
    with pytest.raises(DataError, match=r"a second result of .* on events \(strict\)"):
        by_model(find_results(tmp_path))


def test_answers_that_were_not_scored_are_not_shown(tmp_path: Path) -> None:
    model = write_run(tmp_path, "m", "events", events("cat", "wolf", "rain", "sea"))
    path = model / "events" / "answers.jsonl"
    path.write_text(path.read_text().replace("wolf", "fox"))
    text = page_of(tmp_path, tmp_path / "report").text
    assert "m: answers.jsonl is not the file that was scored" in text and "fox" not in text


def test_no_results_and_no_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="found no results"):
        write_lm_report([], tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    runs(tmp_path / "runs")
    with pytest.raises(MissingExtra, match="evaluate"):
        write_lm_report(find_results(tmp_path / "runs"), tmp_path / "report")
    assert page_of(tmp_path / "runs", tmp_path / "report").tags


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    runs(tmp_path / "runs")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"taken: cannot be written \(File exists"):
        page_of(tmp_path / "runs", tmp_path / "taken")


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    runs(tmp_path / "runs")
    pages = [tmp_path / name / "report.html" for name in "ab"]
    for path in pages:
        page_of(tmp_path / "runs", path.parent)
    assert pages[0].read_bytes() == pages[1].read_bytes()


# Players


def sounds_in(page: Page) -> list[bytes]:
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("audio", "src")]
    return [base64.b64decode(value.removeprefix("data:audio/mpeg;base64,")) for value in sources]


def test_clips_of_the_source_can_be_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = tmp_path / "data" / "m.jsonl"
    for at in range(4):
        wav(tmp_path / "data" / f"{at}.wav", 0.2)
    wav(tmp_path / "data" / "1.wav", 12.0)
    lines = [json.dumps({"audio": f"{at}.wav", "event": label}) for at, label in enumerate(LABELS)]
    manifest.write_text("\n".join(lines))
    write_run(tmp_path / "runs", "m", "events", events("cat", "wolf", "snow", "sea"), run={"source": str(manifest)})
    found = sounds_in(page_of(tmp_path / "runs", tmp_path / "report"))
    assert [decode(each).facts.duration_s for each in found] == pytest.approx([10.0, 0.2], abs=0.02)
    assert sounds_in(page_of(tmp_path / "runs", tmp_path / "report", players=False)) == []
    (tmp_path / "data" / "1.wav").write_bytes(b"no audio")
    page = page_of(tmp_path / "runs", tmp_path / "report")
    assert len(sounds_in(page)) == 1 and "clip cannot be read" in page.text


def test_folders_of_clips_come_first_and_are_not_left(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "m", "events", events(*LABELS), run={"source": str(tmp_path / "gone.jsonl")})
    (result,) = find_results(tmp_path / "runs")
    root = tmp_path / "root"
    inside = wav(root / "sub" / "a.wav").read_bytes()
    wav(tmp_path / "secret.wav")
    (root / "link.wav").symlink_to(tmp_path / "secret.wav")
    find = audio_of(result, [root])
    assert find("sub/a.wav") == inside and find("sub/a") == inside
    for name in ("../secret.wav", str(tmp_path / "secret.wav"), "link.wav", "none.wav", "a\0b", "x" * 5000, "", "sub"):
        assert find(name) is None


def test_results_of_others_lead_to_no_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, bundle = wav(tmp_path / "private" / "0.wav"), tmp_path / "bundle"
    monkeypatch.chdir(wav(tmp_path / "work" / "x.wav").parent)
    own = wav(bundle / "1.wav").read_bytes()
    (bundle / "2.wav").symlink_to(private)
    (bundle / "inner").symlink_to(private.parent)
    names = [str(private), "1.wav", "2.wav", "inner/0.wav"]
    rows = [json.dumps({"audio": name, "event": label}) for name, label in zip(names, LABELS, strict=True)]
    (bundle / "m.jsonl").write_text("\n".join(rows))
    (private.parent / "m.jsonl").write_text(json.dumps({"audio": "0.wav", "event": "dog"}))
    outside = private.parent
    sources = (bundle / "m.jsonl", outside / "m.jsonl", f"{bundle / 'm.jsonl'}:{outside}", bundle / "inner" / "m.jsonl")
    for at, source in enumerate(sources):
        runs = bundle / f"runs{at}"
        write_run(runs, "m", "events", events(*LABELS), run={"source": str(source)})
        (result,) = find_results(runs)
        for roots in ([], [bundle]):
            find = audio_of(result, roots)
            assert [find(name) for name in (*names, "0.wav") if name != "1.wav"] == [None] * 4
        assert source != sources[0] or audio_of(result, [bundle])("1.wav") == own


def test_players_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(4):
        wav(tmp_path / "audio" / f"{at}.wav")
    write_run(tmp_path / "runs", "m", "events", events("x", "x", "x", "x"))
    assert len(sounds_in(page_of(tmp_path / "runs", tmp_path / "report", audio=[tmp_path / "audio"]))) == 4
    monkeypatch.setattr(answer_examples, "MAX_PLAYER_BYTES", 6_000)
    page = page_of(tmp_path / "runs", tmp_path / "report", audio=[tmp_path / "audio"])
    assert 0 < len(sounds_in(page)) < 4 and "left out, to keep the page small" in page.text


# Published figures


def test_published_figures_are_those_of_the_declared_tasks() -> None:
    known = {task.name: task for task in language_tasks()}
    by_name = {table.name: table for table in published_answers()}
    report = {**by_name["report"].scores["MiDashengLM-7B"]}
    for table in published_answers():
        for scores in table.scores.values():
            assert set(scores) <= set(known) and all(0 < value < 1 for value in scores.values())
        groups = {group.name for group in (*GROUPS, *CATEGORIES)}
        assert all(set(own) <= groups for tasks in table.groups.values() for own in tasks.values())
    # The declarations of tasks hold the same figures, in percent.
    for name, task in known.items():
        for system, table in (
            ("MiDashengLM-7B", report),
            ("MiDashengLM-7B-1021", by_name["1021"].scores["MiDashengLM-7B-1021"]),
        ):
            if system in task.published:
                assert table[name] == pytest.approx(task.published[system] / 100)
    assert by_name["mecat_date"].groups["Qwen2.5-Omni-7B"]["mecat_caption"]["content_long"] == 0.611


def test_overalls_of_mecat_follow_from_their_groups() -> None:
    by_name = {table.name: table for table in published_answers()}
    formulas = {"mecat_caption": caption_score, "mecat_qa": question_score}
    checked = 0
    for name in ("mecat_date", "mecat_fense"):
        table = by_name[name]
        for system, tasks in table.groups.items():
            for task, groups in tasks.items():
                assert table.scores[system][task] == pytest.approx(formulas[task](groups), abs=0.00101)
                checked += 1
        for system, own in table.printed.items():
            for task, value in own.items():
                assert abs(value - formulas[task](table.groups[system][task])) > 0.001
    assert checked == 32
    assert by_name["mecat_date"].scores["Qwen2.5-Omni-7B"]["mecat_caption"] == 0.426
    assert by_name["mecat_date"].printed["Qwen2.5-Omni-7B"]["mecat_caption"] == 0.43


def test_published_figures_are_apart_and_only_beside_compat(tmp_path: Path) -> None:
    truth = [{"label": ["cat", "dog"]}, {"label": ["dog"]}]
    rows = rows_of("fsd50k", ["cat; dog", "dog"], truth)
    write_run(tmp_path / "runs", "m", "fsd50k", rows, scoring_rules=("strict", "compat"))
    page = page_of(tmp_path / "runs", tmp_path / "report")
    text = page.text[page.text.index("Beside published figures") :]
    assert "not re-measured" in text and "MiDashengLM-7B MiDashengLM technical report" in text and "37.58" in text
    assert page.text.count("37.58") == 1
    assert "37.58" not in page_of(tmp_path / "runs", tmp_path / "report", published=False).text
    tables = {each["protocol"]: each for each in report_content(find_results(tmp_path / "runs"))["tables"]}
    assert tables["strict"]["published"] == []
    assert {"system": "Qwen2.5-Omni 7B", "source": "MiDashengLM, tables of the talk", "value": 0.2387} in tables[
        "compat"
    ]["published"]


# MECAT


def mecat_run(out: Path, model: str, gain: float) -> None:
    folder = out / model / "mecat_caption"
    (folder / "references").mkdir(parents=True)
    clips = {"S00": ["S00_1", "S00_2"], "0M0": ["0M0_1"], "00A": ["00A_1"]}
    for domain, names in clips.items():
        fields = {"long": ["a dog"], "environment": ["a room"]}
        lines = [json.dumps({name: {**fields, "domain": domain}}) for name in names]
        (folder / "references" / f"{domain}.jsonl").write_text("\n".join(lines) + "\n")
    answers = [json.dumps({name: {"long": f"{model} says"}}) + "\n" for own in clips.values() for name in own]
    (folder / "answers.jsonl").write_text("".join(answers))
    values = {name: gain * (at + 1) / 10 for at, name in enumerate(name for own in clips.values() for name in own)}
    scored = Scored(
        kind="mecat",
        scoring_rule="compat",
        rule=RULES["mecat", "compat"],
        scores={},
        parts={"content_long": {"date": Score(sum(values.values()) / 4, 0.1, 0.9, 4)}},
        items={"content_long.date": values},
        settings={"kind": "caption", "encoder": {"name": "toy"}},
        data={
            "references_sha256": "ab" * 32,
            "answers_sha256": {"all": sha256((folder / "answers.jsonl").read_bytes()).hexdigest()},
        },
    )
    (folder / "compat.json").write_text(scored.to_json())


def test_groups_and_domains_of_mecat(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for model, gain in (("a", 1.0), ("b", 2.0)):
        mecat_run(tmp_path / "runs", model, gain)
    (row,) = task_rows(by_model(find_results(tmp_path / "runs")))
    domains = mecat_domains(row)
    assert list(domains) == ["00A", "0M0", "S00"]
    assert domains["S00"] == pytest.approx({"a": 0.15, "b": 0.3}) and domains["00A"]["b"] == pytest.approx(0.8)
    assert row.metric == "mean of date" and row.best == ["b"] and row.published == ()
    found = worst_answers(row, 2)
    items = [(each.group, each.item, each.audio) for each in found.items]
    assert items == [("content_long", "S00_1", "S00_1"), ("content_long", "S00_2", "S00_2")]
    assert found.items[0].answers["a"].prediction == "a says" and found.items[0].references == ("a dog",)
    page = page_of(tmp_path / "runs", tmp_path / "report", figures=True)
    assert "MECAT-Caption: groups, compat" in page.text and "61.1" in page.text  # of Qwen2.5-Omni-7B, long
    assert "Sentences were compared by toy here" not in page.text  # no published figure is of that metric
    assert (tmp_path / "report" / "mecat-1.png").is_file()
