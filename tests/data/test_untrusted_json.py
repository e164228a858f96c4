"""Untrusted JSON is read as its classes describe it, or refused with the place of the fault."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, Strict

from auricle.data.untrusted_json import (
    StrictFields,
    check_plain,
    parse_json,
    parse_object,
    read_text,
    shorten,
    validate,
)
from auricle.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel(StrictFields):
    size: Annotated[float, Field(ge=0)]
    spokes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cart(StrictFields):
    name: Annotated[str, Field(min_length=1)]
    wheels: Mapping[str, Wheel]
    colour: Literal["red", "blue"] = "red"
    labels: Annotated[tuple[str, ...], Strict(False)] = ()
    settings: Annotated[Mapping[str, Any], AfterValidator(check_plain())] = field(default_factory=dict)
    load: float | None = None
    is_new: bool = False

    def __post_init__(self) -> None:
        if self.load == 13:
            raise ConfigError("load is 13, expected a lucky number")


WHOLE: dict[str, Any] = {"name": "a", "wheels": {"left": {"size": 1}}}


def test_an_object_becomes_an_instance() -> None:
    found = validate(Cart, WHOLE | {"labels": ["x"], "settings": {"a": [None, 1]}, "load": 2}, "cart")
    assert found == Cart(name="a", wheels={"left": Wheel(size=1.0)}, labels=("x",), settings={"a": [None, 1]}, load=2.0)
    assert isinstance(found.wheels["left"].size, float)
    assert validate(list[int], [1, 2], "numbers") == [1, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ...}, "has no name"),
        ({"name": ""}, "name is '', expected to have at least 1 character"),
        ({"name": 3}, "name is 3, expected text"),
        ({"name": "\udcff"}, r"name is '\\udcff', expected valid characters"),
        ({"odd": 1}, "unknown field odd"),
        ({"o d": 1}, "unknown field 'o d'"),
        ({"colour": "pink"}, "colour is 'pink', expected 'red' or 'blue'"),
        ({"wheels": []}, r"wheels is \[\], expected an object"),
        ({"wheels": {"left": 1}}, "wheels.left is 1, expected an object"),
        ({"wheels": {"on the left": {"size": "1"}}}, "wheels.'on the left'.size is '1', expected a number"),
        ({"wheels": {"left": {"size": True}}}, "wheels.left.size is True, expected a number"),
        ({"wheels": {"left": {"size": -1}}}, "wheels.left.size is -1, expected greater than or equal to 0"),
        ({"wheels": {"left": {"size": float("inf")}}}, "wheels.left.size is inf, expected a finite number"),
        ({"wheels": {"left": {"size": 1, "spokes": 1.0}}}, "wheels.left.spokes is 1.0, expected a whole number"),
        ({"wheels": {"left": {"size": 1, "hub": 1}}}, "unknown field wheels.left.hub"),
        ({"labels": "x"}, "labels is 'x', expected a list"),
        ({"labels": ["x", 2]}, r"labels\[1\] is 2, expected text"),
        ({"load": "2"}, "load is '2', expected a number"),
        ({"is_new": 1}, "is_new is 1, expected true or false"),
        ({"settings": {"a": [[[[[[[[[1]]]]]]]]]}}, "settings is .*, expected at most 8 levels"),
        ({"settings": {"a" * 20_000: 1}}, "settings is .*, expected names and texts of at most 10000 characters"),
        ({"settings": {"a": 10**400}}, "settings is .*, expected numbers of at most 1e.15"),
        ({"settings": {"a": float("nan")}}, "settings is .*, expected numbers of at most 1e.15"),
        ({"load": 13}, "load is 13, expected a lucky number"),
        ({"name": 1, "colour": 1}, r"name is 1, expected text \(1 more\)"),
    ],
)
def test_a_fault_is_named_with_its_place(changes: dict[str, Any], words: str) -> None:
    content = {name: value for name, value in {**WHOLE, **changes}.items() if value is not ...}
    with pytest.raises(DataError, match=f"^cart.json: {words}") as caught:
        validate(Cart, content, "cart.json")
    assert len(str(caught.value)) < 250


def test_the_error_and_its_advice_may_be_chosen() -> None:
    with pytest.raises(ConfigError, match=r"^cart: is 1, expected an object; write it again$"):
        validate(Cart, 1, "cart", error=ConfigError, fix="write it again")


@settings(max_examples=40)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda own: st.lists(own) | st.dictionaries(
    st.sampled_from(["name", "wheels", "size", "labels", "settings"]) | st.text(), own)))  # fmt: skip
def test_whatever_is_no_cart_is_refused(content: Any) -> None:
    try:
        assert isinstance(validate(Cart, content, "cart"), Cart)
    except DataError as error:
        assert str(error).startswith("cart: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 1}', "given twice"),
        ('[{"a": NaN}]', "NaN is not a number"),
        ("-Infinity", "-Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting"),
    ],
)
def test_what_is_no_json_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    with pytest.raises(DataError, match=f"^line 3: no readable JSON .*{words}"):
        parse_object(text, "line 3", allow_nan=False)


def test_numbers_that_are_none_may_be_allowed() -> None:
    assert str(parse_object('{"a": NaN}', "line 1")) == "{'a': nan}"
    with pytest.raises(DataError, match=r"holds \[1\], expected a JSON object"):
        parse_object("[1]", "line 1")


def test_files_are_bounded_and_in_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    assert read_text(path) == "a\nb\n"
    with pytest.raises(DataError, match=r"a\.json: more than 5 bytes, expected at most that; cut the file"):
        read_text(path, max_bytes=5)
    path.write_bytes(json.dumps("é", ensure_ascii=False).encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.json: not readable .*, expected UTF-8; save it in UTF-8"):
        read_text(path)
    with pytest.raises(DataError, match=r"none\.json: not readable \(No such file or directory\); check its name"):
        read_text(tmp_path / "none.json")


def test_a_value_in_a_message_is_one_short_line() -> None:
    assert shorten("a\nb") == r"'a\nb'" and shorten(None) == "None"
    assert max(len(shorten(value)) for value in ("é" * 999, list(range(999)), {"a" * 999: "b" * 999})) <= 80


def test_parsing_does_not_import_pydantic() -> None:
    code = "import sys, auricle.data.untrusted_json as u; u.parse_json('1'); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
