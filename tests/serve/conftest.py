"""Models that are served: the embedded one, one of random weights that always says something, and small others."""

from collections.abc import Iterator
from copy import copy
from typing import Any

import pytest
import torch

import auricle
from auricle.encode.aligner import Aligner
from auricle.engine import Engine
from auricle.listen import AudioLM
from auricle.listen.other_models.whisper import Whisper
from auricle.models.dasheng import DashengConfig
from auricle.models.glap import Glap, GlapConfig
from auricle.models.sonar import SonarConfig
from auricle.weights.glap import LoadedGlap
from auricle.weights.text_tokenizers import NllbTokenizer

from ..conftest import FOLDER
from ..listen.test_whisper import Counter

ALIGNER = "small-aligner"


@pytest.fixture(scope="session")
def tiny() -> AudioLM:
    """The embedded model, as a user of the library has it."""
    return auricle.load("auricle-tiny", device="cpu")


@pytest.fixture(scope="session")
def aligner() -> Aligner:
    pytest.importorskip("sentencepiece", reason="needs the extra align")
    torch.manual_seed(4)
    config = GlapConfig(
        audio=DashengConfig(embed_dim=16, depth=1, num_heads=2),
        text=SonarConfig(vocab_size=256_206, width=8, depth=1, num_heads=2, hidden=16),
        embed_dim=12,
    )
    network = Glap(config).eval()
    network.set_calibration(10.0, -5.0)
    tokenizer = NllbTokenizer(FOLDER.parent / "glap" / "spm.model")
    return Aligner(LoadedGlap(model=network, tokenizer=tokenizer, identity={"name": ALIGNER, "sha256": None}))


@pytest.fixture(scope="session")
def models(tiny: AudioLM, model: AudioLM, aligner: Aligner) -> Any:
    """All of them; the engines are the server's own."""
    from auricle.serve.service import Models

    talker = own_engine(model)
    talker.loaded = copy(model.loaded)
    object.__setattr__(talker.loaded, "identity", {**model.loaded.identity, "name": "talker"})
    audio_lms = {
        "auricle-tiny": own_engine(tiny),
        "talker": talker,
        "whisper:toy": Whisper(Counter(), "whisper:toy", fingerprint="f"),
    }
    return Models(audio_lms=audio_lms, aligner=aligner, aligner_name=ALIGNER)


def own_engine(model: AudioLM) -> AudioLM:
    """The same model with an engine that no other thread uses."""
    own = copy(model)
    own.engine = Engine(model.loaded, max_batch=16)
    return own


@pytest.fixture(scope="module")
def server(models: Any) -> Iterator[Any]:
    from .running import running

    with running(models=models) as found:
        yield found
