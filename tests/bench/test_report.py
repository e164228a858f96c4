import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from auricle.bench.report import write_report
from auricle.bench.results import (
    NO_LEAKS,
    Contamination,
    Cost,
    DataFacts,
    EncoderFacts,
    HeadScore,
    Leaks,
    Result,
    TaskFacts,
)
from auricle.errors import DataError, MissingExtra

from ..pages.reading import HOSTILE, Page


def made_up(encoder: str, task: str, value: float, **changes: Any) -> Result:
    result = Result(
        task=TaskFacts(
            name=task,
            title=task.upper(),
            suite="xares",
            domain="sound",
            kind="clip",
            metric="accuracy",
            higher_is_better=True,
            weight=1.0,
        ),
        encoder=EncoderFacts(
            name=encoder, fingerprint=encoder, output_dim=8, hop_ms=40.0, parameters=5_000_000, random=False
        ),
        scoring_rule="strict",
        seed=4711,
        data=DataFacts(manifest="ab" * 32, clips=10, pieces=10, seconds=50.0, splits={"train": 6, "test": 4}),
        scores={
            "mlp": HeadScore(
                value=value, low=value - 0.01, high=value + 0.02, n=400, folds={}, classes={}, settings={"lr": 0.001}
            )
        },
        items={},
        leaks=NO_LEAKS,
        cost=Cost(encode_s=2.0, audio_s=50.0, encoded=10, reused=0, heads_s=1.0, peak_rss_mb=1.0, threads=2),
        version="0.1.0",
    )
    return replace(result, **changes)


def three_domains(encoder: str, value: float, **changes: Any) -> list[Result]:
    results = []
    for domain in ("speech", "sound", "music"):
        result = made_up(encoder, f"{domain}s", value, **changes)
        results.append(replace(result, task=replace(result.task, domain=domain)))
    return results


def written(results: list[Result], folder: Path, **options: Any) -> Page:
    pytest.importorskip("matplotlib")
    paths = write_report(results, folder, **options)
    assert [path.name for path in paths] == ["report.html", "scores.png", "cost.png"]
    for path in paths[1:]:
        assert path.read_bytes().startswith(b"\x89PNG")
    page = Page(paths[0].read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Path]:
    """The page of two encoders on a task of each domain, and its folder."""
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    return written([*three_domains("a", 0.5), *three_domains("b", 0.75)], folder), folder


def test_the_page_needs_no_other_file(plain: tuple[Page, Path]) -> None:
    page, _ = plain
    assert "script" not in page.tags and "img" not in page.tags and "link" not in page.tags
    assert any(name == "content" and "default-src 'none'" in value for _, name, value in page.attributes)
    for tag, name, value in page.attributes:
        assert name not in ("src", "action", "srcset") and not name.startswith("on")
        assert "http" not in value or name.startswith("xmlns"), (tag, name, value)
        assert name not in ("href", "xlink:href") or value.startswith("#")
        assert all(inner.startswith("#") for inner in re.findall(r"url\((.*?)\)", value))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 10
    links = [value[1:] for _, name, value in page.attributes if name == "xlink:href"]
    assert links and set(links) <= set(ids)


def test_every_number_has_its_provenance(plain: tuple[Page, Path]) -> None:
    for part in ("0.490 to 0.520", "n = 400", "4711", "ab" * 32, "0.1.0", '{"mlp": {"lr": 0.001}}', "train: 6"):
        assert part in plain[0].text


def test_what_does_not_apply_is_not_claimed(plain: tuple[Page, Path]) -> None:
    text = plain[0].text
    assert "no clip that is in two splits" in text and "Warning" not in text
    assert "random weights" not in text and "not re-measured" not in text
    assert "weighted average of a domain, 3 tasks in all" in text


def test_the_same_results_give_the_same_page(plain: tuple[Page, Path], tmp_path: Path) -> None:
    written([*three_domains("a", 0.5), *three_domains("b", 0.75)], tmp_path)
    for name in ("report.html", "scores.png", "cost.png"):
        assert (tmp_path / name).read_bytes() == (plain[1] / name).read_bytes()


def hostile(payload: str, task: str) -> Result:
    """A valid result with the payload wherever a text may be."""
    plain = made_up("x", "y", 0.5)
    score = replace(plain.scores["mlp"], settings={payload: [payload]}, folds={payload: 0.5}, classes={payload: 0.5})
    pair = (payload, payload, payload, payload)
    return replace(
        plain,
        task=replace(plain.task, name=task, title=task, suite=payload, metric=task),
        encoder=replace(plain.encoder, name=payload, fingerprint=payload),
        data=replace(plain.data, splits={payload: 1}),
        scores={HOSTILE[0]: score},
        leaks=Leaks(exact=(pair,), near=((*pair, 0.9),)),
        contamination=Contamination(
            known=True, sets=(payload,), clips=1, share=1.0, splits={payload: 1}, items=(payload,)
        ),
        version=payload,
    )


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    results = [hostile(payload, task) for payload in HOSTILE for task in HOSTILE]
    assert all(result.to_json() for result in results)  # nothing the reader would have refused
    page = written(results, tmp_path)
    assert not page.tags & {"script", "img", "a", "iframe"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "one task, as there are fewer than three domains" in page.text
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not set(raw) & {"\u202e", "\x1b"}
    for payload in HOSTILE:
        assert "<" not in payload or payload not in raw
        seen = re.sub(r"[\n\u202e\x1b]", "\ufffd", payload)
        assert " ".join(seen.split()) in page.text


def test_the_best_of_a_row_is_marked(tmp_path: Path) -> None:
    error = replace(made_up("a", "error", 7.0), task=replace(made_up("a", "error", 7.0).task, higher_is_better=False))
    other = replace(error, encoder=made_up("b", "error", 1.0).encoder, scores=made_up("b", "error", 3.0).scores)
    written([*three_domains("a", 0.5), error, *three_domains("b", 0.75), other], tmp_path, published=False)
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<td class="n best">([\d.]+)<', raw) == ["0.750", "3.000", "0.750", "0.750"]
    assert "error (lower is better)" not in raw and "accuracy (lower is better)" in raw
    assert "tasks all encoders have: 3" in raw


def test_random_weights_and_leaks_are_marked(tmp_path: Path) -> None:
    leaks = Leaks(exact=(("bark.wav", "train", "woof.wav", "test"),), near=())
    floor = [replace(r, encoder=replace(r.encoder, random=True)) for r in three_domains("floor", 0.1)]
    text = written([*three_domains("a", 0.5, leaks=leaks), *floor], tmp_path).text
    assert "floor random weights" in text
    assert "Warning. Some clips are in two splits" in text and "bark.wav (train) and woof.wav (test)" in text


def test_an_encoder_that_was_trained_on_the_clips_is_marked(tmp_path: Path) -> None:
    trained = Contamination(known=True, sets=("Set A",), clips=3, share=0.75, splits={"1": 2, "2": 1}, items=("a",))
    text = written([*three_domains("a", 0.5, contamination=trained), *three_domains("b", 0.5)], tmp_path).text
    assert "⚠ a was trained on some of the clips" in text
    assert "b was trained on" not in text
    assert "Encoders were trained on some of the clips" in text
    assert "1: 2, 2: 1" in text and "75.0" in text and "Set A" in text


def test_other_data_is_neither_averaged_nor_hidden(tmp_path: Path) -> None:
    moved = replace(made_up("b", "t", 0.9), data=replace(made_up("b", "t", 0.9).data, manifest="cd" * 32))
    page = written([made_up("a", "t", 0.5), moved], tmp_path, published=False)
    assert "not on the same data" in page.text and "tasks all encoders have: 0" in page.text


def test_published_scores_are_shown_beside_own_ones_of_that_suite(tmp_path: Path) -> None:
    text = written([made_up("mine", "esc50", 0.5)], tmp_path).text
    assert "published, not re-measured" in text and "BEATs (90M) iter3" in text and "1 of 22" in text
    assert "fewer than three domains" in text  # one task spans no radar either, and is drawn as a bar


def test_many_encoders_are_drawn(tmp_path: Path) -> None:
    many = [result for i in range(12) for result in three_domains(f"encoder {i} " + "long " * 20, i / 12)]
    written(many, tmp_path)


@pytest.mark.parametrize(
    ("encode_s", "audio_s", "encoded", "parameters"),
    [(0.0, 0.0, 0, None), (1e15, 5e-324, 1, 0), (5e-324, 1e15, 1, 2**63 - 1)],
)
def test_extreme_costs_are_drawn(
    encode_s: float, audio_s: float, encoded: int, parameters: int | None, tmp_path: Path
) -> None:
    cost = replace(made_up("a", "t", 0.0).cost, encode_s=encode_s, audio_s=audio_s, encoded=encoded)
    results = [made_up("a", task, 1.0, cost=cost) for task in ("one", "two", "three")]
    written([replace(r, encoder=replace(r.encoder, parameters=parameters)) for r in results], tmp_path)


def test_scores_outside_0_and_1_are_shown_but_not_averaged(tmp_path: Path) -> None:
    huge = replace(made_up("a", "huge", -1e15), scoring_rule="compat")
    zero = replace(made_up("a", "free", 0.0), scoring_rule="compat")
    text = written([huge, replace(zero, task=replace(zero.task, weight=0.0))], tmp_path, published=False).text
    assert "-1e+15" in text and "tasks all encoders have: 1 0.000" in text


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no results"):
        write_report([], tmp_path)
    pytest.importorskip("matplotlib")
    with pytest.raises(DataError, match="twice"):
        write_report([made_up("a", "t", 0.5)] * 2, tmp_path)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"auricle\[bench\]"):
        write_report(three_domains("a", 0.5), tmp_path / "none")
    assert not (tmp_path / "none").exists()
