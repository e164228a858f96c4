"""Rankings with intervals equal GLAP's own evaluation, from the same embeddings, by way of a whole run."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from auricle.bench.alignment import text_retrieval
from auricle.bench.examples import captioned_task
from auricle.metrics.retrieval import retrieval_estimates
from auricle.models.frame_model import Identity

from .conftest import ROOTS

NAMES = {"r1": "r1", "r5": "r5", "r10": "r10", "mean_rank": "meanr", "median_rank": "medr", "map10": "mAP10"}
DIRECTIONS = {"audio_to_text": "a2t", "text_to_audio": "t2a"}


class Case:
    """Rows of one setting of the reference: a sound is repeated for each of its captions."""

    def __init__(self, folder: Path, captions: int) -> None:
        tensors = load_file(folder / "golden.safetensors")
        if (folder / "inputs.safetensors").is_file():
            tensors |= load_file(folder / "inputs.safetensors")
        settings = json.loads((folder / "golden.json").read_text())["retrieval"]
        self.metrics = next(each for each in settings if each["num_caps"] == captions)["metrics"]
        self.audio: Tensor = tensors[f"retr_audio_nc{captions}"][::captions]
        self.text: Tensor = tensors[f"retr_text_nc{captions}"]
        self.owners = torch.arange(len(self.text)) // captions

    def check(self, found: Any) -> None:
        for ours, theirs in DIRECTIONS.items():
            for name, released in NAMES.items():
                unit = 1 if name.endswith("rank") else 100
                assert unit * found[ours][name] == pytest.approx(self.metrics[theirs][released], abs=1e-9)


class Replay:
    """Gives the stored embeddings: of the sound whose level tells its number, and of the caption that names its own."""

    fingerprint = "b" * 64
    model = SimpleNamespace(logit_scale=None, logit_bias=None)

    def __init__(self, case: Case) -> None:
        self.case, self.embedding_dim = case, case.audio.shape[1]

    def audio_many(self, sources: Any) -> Iterator[Any]:
        for waveform in sources:
            yield SimpleNamespace(values=self.case.audio[round(float(np.abs(waveform).max()) * 1000) - 1])

    def text(self, strings: Sequence[str], *, language: str) -> Tensor:
        return self.case.text[[int(text) for text in strings]]

    def probability(self, scores: Tensor) -> Tensor:
        return scores

    def identity(self) -> Identity:
        return Identity({}, {}, 0)


@pytest.fixture(scope="module", params=ROOTS)
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param / "glap")


@pytest.mark.parametrize("captions", [1, 5])
def test_rankings(folder: Path, captions: int) -> None:
    case = Case(folder, captions)
    found = retrieval_estimates(
        case.audio, case.text, torch.stack([case.owners, torch.arange(len(case.text))], 1), rounds=50
    )
    tables = {direction: getattr(found, direction) for direction in DIRECTIONS}
    case.check({key: {name: table[name].value for name in NAMES} for key, table in tables.items()})
    for table in tables.values():
        for estimate in table.values():
            assert estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("rule", ["compat", "strict"])
@pytest.mark.parametrize("captions", [1, 5])
def test_a_run_over_a_manifest(folder: Path, tmp_path: Path, captions: int, rule: Any) -> None:
    case, lines = Case(folder, captions), []
    for number in range(len(case.audio)):
        soundfile.write(tmp_path / f"{number}.wav", np.full(1600, (number + 1) / 1000), 16_000, subtype="FLOAT")
        said = [str(row) for row in range(number * captions, (number + 1) * captions)]
        lines.append(json.dumps({"audio": f"{number}.wav", "captions": said}) + "\n")
    (tmp_path / "set.jsonl").write_text("".join(lines))
    task = captioned_task("set")
    result = text_retrieval(
        Replay(case), task, tmp_path / "set.jsonl", name="replay", store=tmp_path / "store", scoring_rule=rule
    )
    score = result.scores["retrieval"]
    case.check({key: {name: score.settings[key][name]["value"] for name in NAMES} for key in DIRECTIONS})
    assert 100 * score.value == pytest.approx((case.metrics["a2t"]["r1"] + case.metrics["t2a"]["r1"]) / 2)
