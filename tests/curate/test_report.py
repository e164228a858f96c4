import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.curate import report
from auricle.curate.filter import filter_shards
from auricle.data.shards import ShardSet, ShardWriter
from auricle.errors import MissingExtra

from ..pages.reading import HOSTILE, Page
from .tones import Tones, pitch, tone, write_pairs


def write_hostile(folder: Path) -> ShardSet:
    rng = np.random.default_rng(3)
    with ShardWriter(folder, "set") as writer:
        for i in range(120):
            hertz = pitch(rng)
            facts = {"caption": f"{HOSTILE[i % len(HOSTILE)]} {hertz} Hz", "domain": HOSTILE[i % 2], "language": "耳朵"}
            writer.write(f"k{i}", tone(hertz, seed=i, samples=20_000), facts)
    return ShardSet(folder)


def test_the_page_needs_no_other_file_and_texts_stay_texts(tmp_path: Path) -> None:
    filter_shards(write_hostile(tmp_path / "in"), tmp_path / "out", Tones())
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.isdisjoint({"script", "iframe", "object", "link", "form"})
    assert not [value for _, name, value in page.attributes if name.startswith("on") or name == "autoplay"]
    sources = [(tag, value) for tag, name, value in page.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:audio/mpeg;base64,", "#")) for _, value in sources)
    assert "default-src 'none'" in text and "\u202e" not in text and page.open == []
    words = " ".join(page.words)
    assert "<script>alert(1)</script>" in words and "Domains and languages" in words
    assert "svg" in page.tags and (tmp_path / "out" / "distributions.png").read_bytes().startswith(b"\x89PNG")
    players = [value for tag, value in sources if tag == "audio"]
    assert len(players) >= 2 * report.EXAMPLES
    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(players[0].partition(",")[2])))
    assert (len(waveform), rate) == (20_000, 16_000)


def test_the_page_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_PLAYER_BYTES", 100_000)
    monkeypatch.setattr(report, "EXCERPT_S", 1.0)
    filter_shards(write_hostile(tmp_path / "in"), tmp_path / "out", Tones())
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    players = re.findall(r"data:audio/mpeg;base64,([^\"]*)", text)
    assert players and sum(map(len, players)) <= 100_000 and "left out, to keep the page small" in text


def test_groups_are_shown_in_numbers(tmp_path: Path) -> None:
    filter_shards(write_pairs(tmp_path / "in", 200), tmp_path / "out", Tones())
    text = " ".join(Page((tmp_path / "out" / "report.html").read_text()).words)
    for words in ("bells / en", "tones / en", "Keep rate", "Dropped, the surest", "fits no better than random pairs"):
        assert words in text
    assert "--alike" not in text


def test_data_that_repeats_itself_is_reported(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "in", "set") as writer:
        for i in range(200):
            hertz = 400 + 600 * (i % 8)
            writer.write(f"k{i}", tone(hertz, seed=i), {"caption": f"{'ABCDEFGHIJ'[i // 20]}: {hertz} Hz"})
    shards = ShardSet(tmp_path / "in")
    first = filter_shards(shards, tmp_path / "out", Tones(noise=0.1))
    assert first.summary["keep"] < 100 and "--alike" in (tmp_path / "out" / "report.html").read_text()
    config = report.FilterConfig(alike=0.9, near=1)
    second = filter_shards(shards, tmp_path / "out", Tones(noise=0.1), config)
    assert second.summary["keep"] > 190 and "--alike" not in (tmp_path / "out" / "report.html").read_text()


def test_without_matplotlib_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_pairs(tmp_path / "in", 40)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"auricle\[bench\]"):
        filter_shards(shards, tmp_path / "out", Tones())
    assert not (tmp_path / "out").exists()


def test_examples_have_the_names_of_their_files(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "in", "set") as writer:
        for i in range(60):
            facts = {"caption": f"{100 * (i + 1)} Hz"} | ({"id": f"/data/set/file {i}.wav"} if i % 2 else {})
            writer.write(f"_data_set_{i}", tone(100 * (i + 1), seed=i), facts)
    filter_shards(ShardSet(tmp_path / "in"), tmp_path / "out", Tones(noise=0.0))
    page = Page((tmp_path / "out" / "report.html").read_text())
    found = set(re.findall(r"file \d+\.wav|_data_set_\d+", page.text))
    assert "/data/set" not in page.text
    assert found and all(int(re.findall(r"\d+", name)[0]) % 2 == name.startswith("file") for name in found)
