"""Answers on disk survive whatever cuts or damages their files."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.engine.request import SamplingParams
from auricle.errors import DataError
from auricle.evaluate import answer_cache
from auricle.evaluate.answer_cache import AnswerCache, KeptAnswer, answer_key

KEYS = [answer_key("f", f"prompt {at}", "s", sampling=SamplingParams()) for at in range(12)]


def fill(folder: Path, texts: list[str], first: int = 0) -> Path:
    """A file with an answer for each text."""
    with AnswerCache(folder) as cache:
        for key, text in zip(KEYS[first:], texts, strict=False):
            cache.add(key, KeptAnswer(text, True))
    return max(folder.glob("*.jsonl"))


def test_what_was_added_is_found_by_every_later_reader(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "deep" / "cache") as cache:
        assert not (tmp_path / "deep").exists() and cache.get(KEYS[0]) is None
        cache.add(KEYS[0], KeptAnswer('a\u2028b\n\udc80 "c"', False))
        # Before anything is closed: a process may be killed now.
        assert AnswerCache(cache.folder).get(KEYS[0]) == KeptAnswer('a\u2028b\n\udc80 "c"', False)
    again = AnswerCache(tmp_path / "deep" / "cache")
    assert len(again) == 1 and again.added == 0 and not again.damaged


def test_the_first_answer_is_kept(tmp_path: Path) -> None:
    first, second = AnswerCache(tmp_path), AnswerCache(tmp_path)
    assert first.add(KEYS[0], KeptAnswer("first", True)).text == "first"
    second.add(KEYS[0], KeptAnswer("second", True))
    assert first.add(KEYS[0], KeptAnswer("third", True)).text == "first" and first.added == 1
    first.close(), second.close()
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert AnswerCache(tmp_path).get(KEYS[0]) == KeptAnswer("first", True)


@settings(max_examples=60)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=5), st.data())
def test_a_file_cut_anywhere_keeps_its_whole_lines(texts: list[str], data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        path = fill(Path(name), texts)
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        cache = AnswerCache(name)
        whole = content[:cut].count(b"\n")
        # A line that lacks nothing but its end is whole too.
        assert len(cache) == whole + (content[cut : cut + 1] == b"\n") and not cache.damaged
        assert all(cache.get(key) == KeptAnswer(text, True) for key, text in zip(KEYS[:whole], texts, strict=False))
        fill(Path(name), texts)
        assert len(AnswerCache(name)) == len(texts)


@settings(max_examples=60)
@given(st.binary(max_size=60), st.sampled_from([b"\n", b""]))
def test_whatever_a_line_holds_only_that_line_is_lost(junk: bytes, end: bytes) -> None:
    with TemporaryDirectory() as name:
        path = fill(Path(name), ["a", "b", "c"])
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([lines[0], junk, *lines[1:]]) if end else b"\n".join([*lines[:-1], junk]))
        assert [AnswerCache(name).get(key) for key in KEYS[:3]] == [KeptAnswer(text, True) for text in "abc"]


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "\udcff",
        "[" * 100_000,
        json.dumps({"key": "0", "text": "a", "complete": True}),
        json.dumps({"key": KEYS[5], "text": 1, "complete": True}),
        json.dumps({"key": KEYS[5], "text": "a", "complete": 1}),
        f'{{"key": "{KEYS[5]}", "text": "a", "text": "b", "complete": true}}',
    ],
)
def test_a_damaged_line_is_reported_with_its_place(tmp_path: Path, line: str) -> None:
    path = fill(tmp_path, ["a", "b"])
    before = path.read_bytes()
    path.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n" + before)
    cache = AnswerCache(tmp_path)
    assert len(cache) == 2 and len(cache.damaged) == 1 and f"{path}, line 1" in cache.damaged[0]


def test_after_a_write_that_failed_halfway_the_next_answer_has_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(file: Any, content: bytes) -> None:
        file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with AnswerCache(tmp_path) as cache:
        cache.add(KEYS[0], KeptAnswer("a", True))
        with monkeypatch.context() as patched, pytest.raises(DataError, match="No space left"):
            patched.setattr(answer_cache, "_write", half)
            cache.add(KEYS[1], KeptAnswer("b", True))
        assert cache.get(KEYS[1]) is None
        cache.add(KEYS[2], KeptAnswer("c", True))
    again = AnswerCache(tmp_path)
    assert again.get(KEYS[0]) and again.get(KEYS[2]) and len(again) == 2 and len(again.damaged) == 1


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="name another folder"):
        AnswerCache(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be kept"), AnswerCache(tmp_path / "file" / "below") as cache:
        cache.add(KEYS[0], KeptAnswer("a", True))


def keys() -> Iterator[str]:
    usual: dict[str, Any] = {"sampling": SamplingParams()}
    yield answer_key("f", "p", "s", **usual)
    yield answer_key("g", "p", "s", **usual)
    yield answer_key("f", "q", "s", **usual)
    yield answer_key("f", "p", "t", **usual)
    yield answer_key("f", "p", "s", sampling=SamplingParams(max_new_tokens=7))
    yield answer_key("f", "p", "s", sampling=SamplingParams(stop=("p",)))
    yield answer_key("f", "p", "s", **usual, reduce="majority")
    yield answer_key("f", "p", "s", **usual, window_s=5.0)
    yield answer_key("fp", "", "s", **usual)


def test_whatever_could_change_an_answer_changes_its_key() -> None:
    assert len(set(keys())) == len(list(keys())) and list(keys()) == list(keys())


@given(place=st.integers(0, 2**12), bit=st.integers(0, 7))
@settings(deadline=None)
def test_a_changed_bit_costs_its_answer_and_is_reported(place: int, bit: int) -> None:
    answers = [KeptAnswer("a dog barks ü", True), KeptAnswer("rain", False)]
    with TemporaryDirectory() as folder:
        with AnswerCache(folder) as cache:
            for key, answer in zip(KEYS, answers, strict=False):
                cache.add(key, answer)
        (path,) = Path(folder).iterdir()
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= 1 << bit
        path.write_bytes(content)
        again = AnswerCache(folder)
        kept = [again.get(key) for key in KEYS[:2]]
        assert all(found in (None, answer) for found, answer in zip(kept, answers, strict=True))
        # The end of the last line may look like what a kill leaves.
        assert None not in kept or again.damaged or place % len(content) >= content.rindex(b"{")


def test_answers_without_checksums_are_those_of_earlier_versions(tmp_path: Path) -> None:
    line = {"key": KEYS[0], "text": "rain", "complete": True}
    (tmp_path / "old.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "key": KEYS[1], "sun": 1}) + "\n")
    cache = AnswerCache(tmp_path)
    assert cache.get(KEYS[0]) == KeptAnswer("rain", True) and cache.get(KEYS[1]) is None
    assert len(cache.damaged) == 1 and "is not what was written" in cache.damaged[0]
