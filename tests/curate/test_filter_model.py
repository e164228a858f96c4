"""The filter with a real model, whose towers are not trained."""

from pathlib import Path

import torch

from auricle.curate.decision import NAMES
from auricle.curate.filter import filter_shards
from auricle.encode.aligner import Aligner
from auricle.models.dasheng import DashengConfig
from auricle.models.glap import Glap, GlapConfig
from auricle.models.sonar import SonarConfig
from auricle.weights.glap import LoadedGlap
from auricle.weights.text_tokenizers import NllbTokenizer

from .tones import write_pairs

TOKENIZER = Path(__file__).resolve().parents[1] / "fixtures" / "glap" / "spm.model"


def test_an_aligner_is_what_the_filter_needs(tmp_path: Path) -> None:
    torch.manual_seed(4)
    config = GlapConfig(
        audio=DashengConfig(embed_dim=16, depth=1, num_heads=2),
        text=SonarConfig(vocab_size=256_206, width=8, depth=1, num_heads=2, hidden=16),
        embed_dim=12,
    )
    loaded = LoadedGlap(model=Glap(config).eval(), tokenizer=NllbTokenizer(TOKENIZER), identity={"name": "small"})
    shards = write_pairs(tmp_path / "in", 80)
    found = filter_shards(shards, tmp_path / "out", Aligner(loaded))
    assert found.encoded[0] == 80 and not found.failed and found.summary["model"] == Aligner(loaded).fingerprint
    assert sum(found.summary[name] for name in NAMES) == 80 and found.summary["mismatched_share"] > 0.5
    again = filter_shards(shards, tmp_path / "out", Aligner(loaded))
    assert again.encoded == (0, 0) and again.summary == found.summary
