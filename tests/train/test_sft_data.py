import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import ConfigError, DataError
from auricle.train.config import SftSettings
from auricle.train.sft_data import Mixture, Row, Sources, read_rows

TALK = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def row_of(number: int, seconds: float = 1.0) -> Row:
    return Row(Path(f"{number}.wav"), "", (("user", "?"), ("assistant", "!")), (), f"m, line {number}", seconds)


def test_rows_in_both_vocabularies(tmp_path: Path) -> None:
    ours = write(
        tmp_path / "a.jsonl",
        {"audio": "x.wav", "prompt": " Who? ", "answer": "a dog", "system": "Be short."},
        "",
        {"path": "/far/y.wav", "answer": "rain", "options": ["rain", "wind"]},
        {"audio": "x.wav", "turns": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes."}]},
    )
    theirs = tmp_path / "b.csv"
    theirs.write_text('audio,system_prompt,user_prompt,prediction\nx.wav,,"Who,\nthen?",me\nx.wav,Shout.,,YOU\n')
    rows = read_rows(ours, prompt="What is it?", system="Default.")
    assert [row.turns for row in rows] == [
        (("user", "Who?"), ("assistant", "a dog")),
        (("user", "What is it?"), ("assistant", "rain")),
        (("user", "Hm?"), ("assistant", "Yes.")),
    ]
    assert [row.system for row in rows] == ["Be short.", "Default.", "Default."]
    assert [row.audio for row in rows] == [tmp_path / "x.wav", Path("/far/y.wav"), tmp_path / "x.wav"]
    assert rows[1].options == ("rain", "wind") and rows[1].where == f"{ours}, line 3" and rows[1].answer == "rain"
    first, second = read_rows(theirs, prompt="What is it?")
    assert first.turns == (("user", "Who,\nthen?"), ("assistant", "me")) and first.system == ""
    assert second.turns == (("user", "What is it?"), ("assistant", "YOU")) and second.system == "Shout."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "?", "answer": "!"}, r"line 2: found columns .*expected the audio file"),
        ({"audio": "x.wav", "answer": "!"}, r"line 2: has no prompt, and no default is set; .*sft.prompt"),
        ({"audio": "x.wav", "prompt": "?"}, r"line 2: has no answer"),
        ({"audio": "x.wav", "prompt": "?", "answer": 3}, r"line 2: answer is \[3\], expected one text"),
        ({"audio": "x.wav", "prompt": "?", "answer": "a", "prediction": "b"}, r"line 2: answer is \['a', 'b'\]"),
        ({"audio": "x.wav", "prompt": "?", "answer": "a", "options": ["b", "c"]}, r"line 2: .*'a' is none of"),
        ({"audio": "x.wav", "prompt": "?", "answer": "a", "options": [1]}, r"line 2: options are \[1\]"),
        ({"audio": "x.wav", "turns": [{"role": "user", "content": "?"}]}, r"line 2: turns are a list"),
        ({"audio": "x.wav", "turns": "hello"}, r"line 2: turns are a list"),
        ({"audio": "x.wav", "turns": [{"role": "user", "content": "?"}] * 2}, r"line 2: turns are a list"),
        ({"audio": "x.wav", "answer": "!", "turns": TALK}, r"line 2: has turns as well as"),
        ({"audio": "../x.wav", "prompt": "?", "answer": "!"}, r"line 2: '../x.wav' is outside"),
        ("{", r"line 2: not valid JSON"),
    ],
)
def test_a_bad_row_names_file_and_line(tmp_path: Path, row: dict[str, Any] | str, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", {"audio": "x.wav", "prompt": "?", "answer": "!"}, row)
    with pytest.raises(DataError, match=rf"bad\.jsonl, {message}"):
        read_rows(path)


def test_a_manifest_without_rows_or_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        read_rows(write(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError, match="no manifest at"):
        read_rows(tmp_path / "nowhere.csv")
    (tmp_path / "latin.jsonl").write_bytes('{"audio": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match="no UTF-8"):
        read_rows(tmp_path / "latin.jsonl")


@settings(max_examples=15)
@given(
    st.lists(st.integers(5, 60), min_size=1, max_size=4).flatmap(
        lambda sizes: st.tuples(
            st.just(sizes), st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes))
        )
    ),
    st.integers(0, 5),
)
def test_shares_hold_and_every_row_comes_before_any_comes_again(
    sampled: tuple[list[int], list[float]], seed: int
) -> None:
    sizes, shares = sampled
    mixture = Mixture([[row_of(i) for i in range(size)] for size in sizes], shares, seed)
    found = mixture.sample(np.arange(2000))
    exact = np.array(shares) / sum(shares) * 1000
    for block in (found[:1000], found[1000:]):
        counts = np.bincount(block[:, 0], minlength=len(sizes))
        assert (np.abs(counts - exact) <= 1 + len(sizes)).all() and (counts >= 1).all()
    for number, size in enumerate(sizes):
        rows = Counter(found[found[:, 0] == number, 1].tolist())
        assert max(rows.values()) - min(rows.get(i, 0) for i in range(size)) <= 1
    assert np.array_equal(mixture.sample(np.array([1500, 3])), found[[1500, 3]])


def test_buckets_keep_the_examples_and_gather_like_lengths() -> None:
    rng = np.random.default_rng(0)
    mixture = Mixture([[row_of(i, float(rng.uniform(1, 30))) for i in range(300)]], [1.0], 3)
    plain = np.concatenate([mixture.batch(step, 8, 1) for step in range(16)])
    batches = [mixture.batch(step, 8, 16) for step in range(16)]
    assert sorted(map(tuple, plain)) == sorted(map(tuple, np.concatenate(batches)))

    def variation(parts: list[np.ndarray]) -> float:
        return float(np.mean([np.ptp(mixture.lengths[0][part[:, 1]]) for part in parts]))

    assert variation(batches) < 0.3 * variation([plain[i : i + 8] for i in range(0, 128, 8)])


def settings_of(folder: Path, **changes: Any) -> SftSettings:
    return SftSettings(**{"train": [str(folder / "good.jsonl"), str(folder / "more.jsonl")], **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seconds in (("short", 0.5), ("long", 2.0)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(int(16_000 * seconds), 0.1), 16_000)
    (tmp_path / "broken.wav").write_bytes(b"no audio at all")
    question = {"prompt": "?", "answer": "!"}
    write(
        tmp_path / "good.jsonl", *({"audio": f"{name}.wav", **question} for name in ("short", "broken", "long", "gone"))
    )
    write(tmp_path / "more.jsonl", {"audio": "short.wav", **question})
    return tmp_path


def test_what_cannot_be_decoded_is_left_out_counted_and_named(folder: Path) -> None:
    sources = Sources(settings_of(folder, max_audio_s=1.0), 0)
    assert [len(rows) for rows in sources.rows] == [1, 1] and sources.rows[0][0].duration_s == 0.5
    assert sources.skipped == {str(folder / "good.jsonl"): 3}
    reasons = dict(sources.reports)
    assert "no audio" in reasons[f"{folder / 'good.jsonl'}, line 2"] or "broken.wav" in str(reasons)
    assert "lasts 2.0 s, sft.max_audio_s is 1" in reasons[f"{folder / 'good.jsonl'}, line 3"]
    assert len(sources.recordings) == 1
    with pytest.raises(DataError, match="none of 1 recordings can be used"):
        Sources(settings_of(folder, max_audio_s=0.4, train=[str(folder / "more.jsonl")]), 0)


def test_shares_are_given_by_the_manifests_names(folder: Path) -> None:
    sources = Sources(settings_of(folder, shares={"good": 3, "more": 1, "other": 9}), 0)
    assert np.bincount(sources.mixture.sample(np.arange(1000))[:, 0]).tolist() == [750, 250]
    with pytest.raises(ConfigError, match="no share above 0 for more; it names good"):
        Sources(settings_of(folder, shares={"good": 3, "mor": 0}), 0)
    with pytest.raises(ConfigError, match="names no manifest"):
        Sources(settings_of(folder, train=[]), 0)
    with pytest.raises(ConfigError, match="different names"):
        Sources(settings_of(folder, shares={"good": 1}, train=[str(folder / "good.jsonl")] * 2), 0)
