"""Files saved with a byte order mark are read as without; what is no regular file, or endless, is refused."""

import os
import shutil
from pathlib import Path

import pytest

from auricle.errors import WeightsError
from auricle.weights.loaders import load_midashenglm, read_chat_template

MARK = b"\xef\xbb\xbf"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


@pytest.fixture
def folder(lm_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(lm_folder, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", FILES)
def test_marks_are_no_content(folder: Path, name: str) -> None:
    plain = load_midashenglm(folder)
    (folder / name).write_bytes(MARK + (folder / name).read_bytes())
    marked = load_midashenglm(folder)
    assert marked.chat_template == plain.chat_template and marked.tokenizer.to_str() == plain.tokenizer.to_str()
    assert (marked.eos_token_ids, marked.model.config) == (plain.eos_token_ids, plain.model.config)


def test_a_mark_within_a_setting(folder: Path) -> None:
    template = read_chat_template(folder)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text('{"chat_template": "\\ufeffx"}')
    assert read_chat_template(folder) == "x" != template


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/nowhere", "folder"])
def test_what_is_no_file_is_refused(folder: Path, name: str, kind: str) -> None:
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to(kind)
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load_midashenglm(folder)


def test_an_error_cannot_control_a_terminal() -> None:
    assert str(WeightsError("\x1b]0;x\x07 a\nb\u202e é 日本")) == r"\x1b]0;x\x07 a b\u202e é 日本"
