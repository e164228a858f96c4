import os
from pathlib import Path

import pytest

from auricle.errors import ConfigError, DataError
from auricle.train.caption import CaptionObjective
from auricle.train.config import dump_config, load_config
from auricle.train.mae import MaeObjective

from .conftest import RECIPE, Configure


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("objective=gan", "objective must be one of mae, caption, align, sft, vocode, denoise, got 'gan'"),
        ("precision=fp8", "precision must be one of bf16, fp32, got 'fp8'"),
        ("steps=0", "steps must be at least 1, got 0"),
        ("accumulate=3", "batch_size 32 is not a multiple of accumulate 3"),
        ("accumulate=0", "accumulate must be at least 1, got 0"),
        ("lr=.inf", "lr is inf; expected a number"),
        ("sft.max_audio_s=.nan", "sft.max_audio_s is nan; expected a number"),
        ("seed=-1", "seed is -1; expected a whole number at least 0"),
        ("stepz=3", "stepz"),
        ("mae.depth=deep", "deep"),
    ],
)
def test_settings_out_of_range_are_named(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, [change])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    for text in ("steps: [1", "- a\n- b\n", "just words\n"):
        broken.write_text(text)
        with pytest.raises(ConfigError, match=r"broken\.yaml"):
            load_config(broken)


@pytest.mark.parametrize(
    "text",
    [
        "out: runs/${oc.env:HOME}",
        "out: ${seed}",
        "data: [a, '${oc.env:HOME,x}']",
        "scenes: {a: xx, b: '${scenes.a}${scenes.a}'}",
        "scenes: {'${oc.env:HOME}': 1}",
        'scenes: {a: {b: [["\\x24{oc.env:HOME}"]]}}',
        "mae: {mask: '${oc.decode:1}'}",
    ],
)
def test_nothing_is_interpolated(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"has \$\{…\}; write the value out"):
        load_config(tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match=r"has \$\{…\}"):
        load_config(None, ["out=${oc.env:HOME}"])


def test_files_that_describe_more_than_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    levels = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    file.write_text("scenes:\n" + "\n".join(f"  {level}" for level in levels))
    with pytest.raises(ConfigError, match="uses aliases"):
        load_config(file)
    file.write_text("#" * 2**20 + "\n")
    with pytest.raises(ConfigError, match="larger than"):
        load_config(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="no regular file"):
        load_config(file)
    file.unlink()
    file.write_text("[" * 50_000)
    with pytest.raises(ConfigError):
        load_config(file)


def test_overrides_win_and_the_whole_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("steps: 5\nmae: {depth: 3}\n")
    config = load_config(file, ["mae.depth=2", "data=[a, b]"])
    assert (config.steps, config.mae.depth, config.data) == (5, 2, ["a", "b"])
    file.write_text(dump_config(config))
    assert load_config(file) == config


@pytest.mark.parametrize("name", ["encoder", "captions"])
def test_the_recipes_are_valid(name: str) -> None:
    config = load_config(RECIPE / f"{name}.yaml")
    assert config.objective == ("mae" if name == "encoder" else "caption") and config.warmup < config.steps


def test_objectives_name_what_does_not_fit(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"crop_s 20\.0 gives 500 tokens; an even number up to 252"):
        MaeObjective(configure("mae", mae={"crop_s": 20.0}))
    with pytest.raises(ConfigError, match=r"is no file; expected a tokenizer\.json"):
        CaptionObjective(configure("caption", caption={"tokenizer": "nowhere.json"}))
    with pytest.raises(ConfigError, match="scenes has no setting loudness; known: shares"):
        CaptionObjective(configure("caption", scenes={"loudness": 3}))
    with pytest.raises(DataError, match="nowhere"):
        MaeObjective(configure("mae", data=[str(tmp_path / "nowhere")]))


@pytest.mark.parametrize("setting", ["lr=-1", "weight_decay=-0.1", "lr_floor=1.5", "beta2=2", "align.translations=-1"])
def test_rates_and_shares_are_in_range(setting: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{name} is .*; expected"):
        load_config(None, ["out=x", setting])
    assert load_config(None, ["align.bias=-12.5"]).align.bias == -12.5
