"""Report, review and plan of a run; pages escape all that comes from outside."""

import base64
import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from auricle.curate.factory.clips import Source
from auricle.curate.factory.experts import Fact
from auricle.curate.factory.pages import statistics, write_report, write_review
from auricle.curate.factory.plan import Prices, plan, total
from auricle.curate.factory.review import FORMAT, Agreement, agreement, read_verdicts
from auricle.curate.factory.run import FactorySettings, caption_sources
from auricle.curate.factory.tasks import WorkSettings
from auricle.data.shards import ShardSet
from auricle.errors import ConfigError, DataError

from .signals import PITCH, by_pitch, write_tones

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


def evil(clips: Any) -> Any:
    return [[*facts, Fact(name="label", value=EVIL, confidence=0.9)] for facts in by_pitch(clips)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    sources = [replace(each, id=f"{each.id}{EVIL}") for each in write_tones(folder / "in", 12)]
    sources = [replace(each, meta={"license": EVIL}) for each in sources]
    sources.append(Source(id=f"bad{EVIL}", audio=str(folder / f"{EVIL[:8].replace('/', '')}.wav")))
    work = WorkSettings(out="", experts=(replace(PITCH, run=evil), "level", "noise", "bandwidth"), device="cpu")
    caption_sources(sources, folder / "out", work, FactorySettings())
    return folder / "out"


def without_script(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)


def test_the_report_shows_domains_experts_and_evidence(made: Path) -> None:
    page = write_report(made).read_text(encoding="utf-8")
    assert all(text in page for text in ("00A", "S00", "0M0", "pitch@1", "level@1", "What failed", "audio/mpeg"))
    assert "ACAVCaps, as published" in page and "644407" in page.replace(",", "")
    assert "by level@1" in page
    assert "<script" not in page.lower() and "<img" not in page.lower()
    assert "default-src 'none'" in page


def test_the_report_is_the_same_again(made: Path) -> None:
    assert write_report(made).read_bytes() == write_report(made, made / "again.html").read_bytes()


@pytest.mark.parametrize("write", [write_report, write_review])
def test_a_page_replaces_no_file_of_the_run(made: Path, write: Any) -> None:
    before = (made / "summary.json").read_bytes()
    with pytest.raises(ConfigError, match="html"):
        write(made, made / "summary.json")
    assert (made / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", '{"format": "auricle-captions-1"}'),
        ("summary.json", "[]"),
        ("dead_letters.jsonl", "{bad"),
        ("dead_letters.jsonl", "[]"),
    ],
)
def test_a_damaged_run_is_refused(made: Path, tmp_path: Path, name: str, content: str) -> None:
    copytree(made, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="caption factory"):
        write_report(tmp_path / "run")


def test_the_review_runs_one_script_that_the_page_names(made: Path) -> None:
    page = write_review(made, clips=5).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "<script" not in without_script(page).lower() and "<img" not in page.lower()
    assert len(re.findall('class="clip"', page)) == 5
    assert set(re.findall(r'data-key="([^"]+)"', page)) <= set(ShardSet(made / "shards").keys())


def test_verdicts_are_read_and_compared(made: Path, tmp_path: Path) -> None:
    manifest = json.loads((made / "summary.json").read_text())["manifest"]
    keys = ShardSet(made / "shards").keys()
    paths = []
    for name, rejected in (("one", 2), ("two", 3)):
        verdicts = {key: "reject" if place < rejected else "accept" for place, key in enumerate(keys[:8])}
        content = {"format": FORMAT, "manifest": manifest, "reviewer": f"{name}{EVIL}", "verdicts": verdicts}
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(content))
    read = [read_verdicts(path, manifest) for path in paths]
    found = agreement([each.verdicts for each in read])
    # Of 8 clips 7 are judged alike; by chance (2 * 3 + 6 * 5) / 64 would be.
    assert found == Agreement(8, 7 / 8, pytest.approx((7 / 8 - 36 / 64) / (1 - 36 / 64)))
    page = write_review(made, tmp_path / "r.html", verdicts=read).read_text(encoding="utf-8")
    assert "kappa 0.71" in page and "87.5" in page and "<img" not in page


@pytest.mark.parametrize(
    "change",
    [{"format": "x"}, {"verdicts": {"a": "maybe"}}, {"verdicts": []}, {"more": 1}, {"manifest": "other"}],
)
def test_wrong_verdicts_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    content = {"format": FORMAT, "manifest": "m", "reviewer": "r", "verdicts": {}, **change}
    (tmp_path / "v.json").write_text(json.dumps(content))
    with pytest.raises(DataError):
        read_verdicts(tmp_path / "v.json", "m")


def test_agreement_without_pairs() -> None:
    assert agreement([]) == agreement([{"a": "accept"}]) == Agreement(0, None, None)
    assert agreement([{"a": "accept"}, {"a": "accept"}]) == Agreement(1, 1.0, None)


def test_words_are_counted(made: Path) -> None:
    found = statistics(ShardSet(made / "shards"))
    texts = [text for i in range(12) for text in ShardSet(made / "shards").read_meta(i)["long"]]
    assert found.captions == 36 and found.mean_words == pytest.approx(sum(len(t.split()) for t in texts) / 36, abs=0.5)
    assert 20 < found.vocabulary < 400


SUMMARY: dict[str, Any] = {
    "audio_s": 1000.0,
    "stages": {"segment": 1.0, "caption": 2.0, "check": 0.0, "filter": 50.0, "pack": 4.0},
    "costs": [
        {"stage": "tag", "expert": "t@1", "device": "cpu", "audio_s": 1000.0, "seconds": 20.0},
        {"stage": "music", "expert": "m@1", "device": "cuda:0", "audio_s": 250.0, "seconds": 5.0},
    ],
    "aligner": "",
    "writer": "m@1",
    "endpoint": None,
}


def test_a_plan_is_the_measured_cost_at_scale() -> None:
    prices = Prices(cores=10, gpus=2, core_hour=0.1, gpu_hour=2.0)
    costs = {cost.stage: cost for cost in plan(SUMMARY, 10_000, prices)}
    tag, music = costs["tag"], costs["music"]
    assert (tag.hours, tag.wall_h, tag.money) == pytest.approx((200.0, 20.0, 20.0))
    assert (music.share, music.hours, music.wall_h, music.money) == pytest.approx((0.25, 50.0, 25.0, 100.0))
    assert costs["pack"].hours == pytest.approx(40.0)
    assert "filter" not in costs and "rewrite" not in costs
    assert total(list(costs.values())).money == pytest.approx(sum(cost.money for cost in costs.values()))


def test_a_plan_has_the_filter_and_the_tokens() -> None:
    used = {"answered": 50, "answered_s": 500.0, "prompt_tokens": 50_000, "answer_tokens": 10_000}
    summary = {**SUMMARY, "aligner": "glap", "endpoint": used}
    costs = {cost.stage: cost for cost in plan(summary, 1.0, Prices(gpus=1, prompt_tokens=1.0, answer_tokens=10.0))}
    assert costs["filter"].hours == pytest.approx(0.05)
    # An hour has 180 such clips; each takes 1000 and 200 tokens.
    assert costs["rewrite"].money == pytest.approx(180 * (1000 * 1 + 200 * 10) / 1e6)


@pytest.mark.parametrize(("hours", "prices"), [(0.0, Prices(gpus=1)), (1.0, Prices())])
def test_a_plan_that_cannot_be_made_is_refused(hours: float, prices: Prices) -> None:
    with pytest.raises(ConfigError):
        plan(SUMMARY, hours, prices)


def test_nothing_measured_is_no_plan() -> None:
    with pytest.raises(DataError, match="measured"):
        plan({**SUMMARY, "audio_s": 0.0}, 1.0, Prices(gpus=1))
