import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from auricle.listen.loading import load
from auricle.models.midashenglm import IGNORE
from auricle.train.caption import CaptionObjective
from auricle.train.mae import MaeObjective
from auricle.weights import load_dasheng, load_midashenglm

from .conftest import Configure


@pytest.fixture
def caption(configure: Configure) -> CaptionObjective:
    torch.manual_seed(0)
    return CaptionObjective(configure("caption"))


@pytest.fixture
def mae(configure: Configure) -> MaeObjective:
    torch.manual_seed(0)
    return MaeObjective(configure("mae"))


def test_a_batch_is_the_sum_of_its_slices(caption: CaptionObjective, mae: MaeObjective) -> None:
    whole = caption.make_batch(5, 0, 4)
    parts = [caption.make_batch(5, start, start + 1) for start in range(4)]
    for name in ("clips", "blanks", "gains", "letters", "tags"):
        for one, part in zip(whole.inputs[name], parts, strict=True):
            torch.testing.assert_close(one, part.inputs[name][0], atol=0, rtol=0, equal_nan=True)
    assert whole.weight == sum(part.weight for part in parts)
    assert whole.audio_s == pytest.approx(sum(part.audio_s for part in parts))
    crops = [mae.make_batch(5, start, start + 2).inputs for start in (0, 2)]
    for name, values in mae.make_batch(5, 0, 4).inputs.items():
        assert torch.equal(values, torch.cat([half[name] for half in crops]))


def test_batches_depend_on_seed_and_step(caption: CaptionObjective, mae: MaeObjective) -> None:
    for objective, name in ((caption, "clips"), (mae, "waveform")):
        first, again, other = (objective.make_batch(step, 0, 2).inputs[name] for step in (0, 0, 1))
        assert all(map(torch.equal, first, again)) and not all(a.equal(b) for a, b in zip(first, other, strict=True))


def test_captions_ask_for_the_answer_and_its_end_alone(caption: CaptionObjective) -> None:
    batch = caption.make_batch(0, 0, 4)
    ids, labels, mask = (batch.inputs[name] for name in ("input_ids", "labels", "attention_mask"))
    wanted = labels != IGNORE
    assert int(wanted.sum()) == batch.weight and torch.equal(ids[wanted], labels[wanted])
    for row in range(4):
        places = wanted[row].nonzero()[:, 0]
        assert places[-1] == mask[row].sum() - 1 and len(places) == places[-1] - places[0] + 1
        assert ids[row, places[-1]] == caption.end_of_turn
        answer = caption.tokenizer.decode(ids[row, places[:-1]].tolist())
        prompt = caption.tokenizer.decode(ids[row, : places[0]].tolist(), skip_special_tokens=False)
        assert answer.strip() and answer.isprintable()
        assert prompt.startswith("<|im_start|>user\n<|audio_bos|><|AUDIO|>")
        assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_dropout_is_sampled_with_the_example(caption: CaptionObjective) -> None:
    batch = caption.make_batch(0, 0, 4)
    gains = torch.cat([gain.flatten() for gain in batch.inputs["gains"]])
    assert gains.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert (gains == 0).float().mean().item() == pytest.approx(0.1, abs=0.04)
    caption.train()
    dropped, again = caption(**batch.inputs).item(), caption(**batch.inputs).item()
    caption.eval()
    assert dropped == again != caption(**batch.inputs).item()


def test_blanked_rectangles_lie_inside(caption: CaptionObjective) -> None:
    rng = np.random.default_rng(0)
    for num_samples in (3200, 16_000, 100_000):
        frames = 1 + num_samples // 160
        for start, stop, low, high in caption._sample_blanks(num_samples, rng).tolist():
            assert 0 <= start <= stop <= frames and 0 <= low <= high <= 64
            assert stop - start <= min(40, frames // 5) or (low, high) != (0, 64)


def test_the_input_norm_keeps_its_statistics_in_caption_training(caption: CaptionObjective) -> None:
    caption.train()
    norm = caption.network.audio_encoder.init_bn
    before = norm.running_mean.clone()
    caption(**caption.make_batch(0, 0, 2).inputs)
    assert not norm.training and torch.equal(norm.running_mean, before)
    assert caption.network.audio_encoder.blocks.training


def test_parameter_groups_hold_every_parameter_once(caption: CaptionObjective, mae: MaeObjective) -> None:
    for objective in (caption, mae):
        groups = objective.parameter_groups(0.1)
        found = [id(parameter) for group in groups for parameter in group["params"]]
        assert len(found) == len(set(found)) and set(found) == {id(p) for p in objective.parameters()}
    flat = [p for group in caption.parameter_groups(0.1) if not group["weight_decay"] for p in group["params"]]
    assert flat and all(parameter.ndim == 1 for parameter in flat)


def test_weights_of_sets_reach_the_scenes(configure: Configure) -> None:
    pools = CaptionObjective(configure("caption", scenes={"set_weights": {"": 0.0, "esc50": 1.0}})).pools
    assert not pools.has("speech") and pools.has("sound")


def test_an_exported_encoder_is_the_trained_one(mae: MaeObjective, configure: Configure, tmp_path) -> None:  # type: ignore[no-untyped-def]
    mae(**mae.make_batch(0, 0, 2).inputs)  # moves the running statistics
    mae.export(tmp_path / "encoder")
    loaded = load_dasheng(tmp_path / "encoder")
    clips = [torch.randn(n) * 0.1 for n in (8000, 20_000)]
    with torch.no_grad():
        ours, theirs = mae.network.encoder.eval().encode(clips), loaded.encode(clips)
    assert all(map(torch.equal, ours, theirs)) and loaded.init_bn.num_batches_tracked == 1
    start = configure("caption", caption={"encoder": str(tmp_path / "encoder")})
    grown = CaptionObjective(start).network.audio_encoder
    assert grown.config.attend == "whole"
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in grown.state_dict().items())
    again = MaeObjective(configure("mae", mae={"init": str(tmp_path / "encoder")}))
    assert all(map(torch.equal, again.network.encoder.parameters(), loaded.parameters()))


def test_an_exported_model_is_the_trained_one(caption: CaptionObjective, configure: Configure, tmp_path) -> None:  # type: ignore[no-untyped-def]
    caption.export(tmp_path / "exported")
    loaded = load_midashenglm(tmp_path / "exported")
    batch = caption.make_batch(0, 0, 2).inputs
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask", "clips")}
    with torch.no_grad():
        assert torch.equal(caption.network.eval()(**prompt), loaded.model(**prompt))
    assert loaded.eos_token_ids == (caption.end_of_turn,)
    assert loaded.tokenizer.to_str() == caption.tokenizer.to_str()
    model = load(str(tmp_path / "exported"))
    assert model.max_audio_s == 2.0
    assert isinstance(model.ask(np.zeros(16_000, np.float32), "Who speaks?", max_new_tokens=3).text, str)
    again = CaptionObjective(configure("caption", caption={"init": str(tmp_path / "exported")}))
    assert all(map(torch.equal, again.network.parameters(), caption.network.parameters()))
    stated = json.loads((tmp_path / "exported" / "generation_config.json").read_text())
    assert stated["do_sample"] is False


def test_training_needs_no_transformers(configure: Configure) -> None:
    outs = [configure(objective, objective, steps=1).out for objective in ("mae", "caption")]
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from auricle.train.config import load_config\nfrom auricle.train.loop import run\n"
        "for config in sys.argv[1:]: run(load_config(config))"
    )
    subprocess.run([sys.executable, "-c", code, *(f"{out}.yaml" for out in outs)], check=True, capture_output=True)
    assert all((Path(out) / "log.jsonl").is_file() for out in outs)
