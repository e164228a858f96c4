"""The released rules against the released scripts of MiDashengLM's evaluation, to the digit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from auricle.metrics import closed_qa, multilabel, ngrams, normalisers, tags
from auricle.metrics.chinese_text import read_aloud_compat
from auricle.metrics.fense import error_penalties, mean_cosine_similarity
from auricle.metrics.word_errors import TranscriptPair, count_errors, error_rates

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "lm_eval"


def stored(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_english_transcripts() -> None:
    pytest.importorskip("whisper_normalizer")
    pairs = lines("normalize_en")
    assert len(pairs) == 71
    for pair in pairs:
        assert normalisers.english()(pair["input"]) == pair["whisper_english"]
        assert normalisers.normalise_compat(pair["input"], "en") == pair["script_en"]


def test_transcripts_of_other_languages() -> None:
    for pair in lines("normalize_en"):
        assert normalisers.basic()(pair["input"]) == pair["basic"]


def test_mandarin_transcripts() -> None:
    pairs = lines("normalize_zh")
    assert len(pairs) == 45
    for pair in pairs:
        assert read_aloud_compat(pair["input"]) == pair["cn_tn"]
        assert normalisers.normalise_compat(pair["input"], "zh") == pair["script_zh"]
        assert normalisers.tokens(pair["input"], "zh", scoring_rule="compat") == pair["chars"]


def test_word_errors() -> None:
    pytest.importorskip("whisper_normalizer")
    pytest.importorskip("zhconv")
    rows = lines("wer_cases")
    assert len(rows) == 24
    transcripts = []
    for row in rows:
        for text, expected in ((row["ref"], row["ref_tokens"]), (row["hyp"], row["hyp_tokens"])):
            assert normalisers.tokens(text, row["lang"], scoring_rule="compat") == expected
        transcripts.append(TranscriptPair(row["ref"], row["hyp"], row["lang"]))
        found = count_errors(transcripts[-1], scoring_rule="compat")
        assert found.errors == row["distance_if_counted"] and found.counts is not row["skipped_by_reference"]
    rates = error_rates(transcripts, scoring_rule="compat", rounds=10)
    aggregate = stored("wer_aggregate")
    assert rates.languages.keys() == aggregate.keys()
    for language, expected in aggregate.items():
        own = [row for row, each in zip(rates.rows, transcripts, strict=True) if each.language == language]
        counted = [row for row in own if row.counts]
        assert sum(row.errors for row in counted) == expected["distance"]
        assert sum(row.length for row in counted) == expected["ref_len"]
        assert rates.languages[language].value == pytest.approx(expected["error_rate"], abs=1e-12)


def test_choices() -> None:
    rows = lines("qa_cases")
    assert len(rows) == 24
    for row in rows:
        assert closed_qa.is_right_compat(row["answer"], row["model_output"], row["choices"]) is row["correct"], row


def test_tags() -> None:
    for row in lines("at_cases"):
        assert tags.contains_label_compat(row["label"][0], row["model_output"]) is row["correct"], row


def test_genders() -> None:
    for row in lines("gender_cases"):
        found = tags.gender_of_compat(row["model_output"])
        assert found == row["normalised"] and (found == row["label"][0]) is row["correct"], row


@pytest.mark.parametrize("table", stored("map_cases"), ids=lambda table: str(table["dataset_name"]))
def test_several_labels(table: dict[str, Any]) -> None:
    names = {"dataset": table["dataset_name"], "model": table["model_name"]}
    split = [tags.split_labels_compat(row["model_output"], **names) for row in table["rows"]]
    assert split == table["processed"]
    references = [[label.lower() for label in row["label"]] for row in table["rows"]]
    assert multilabel.multilabel_scores(references, split, rounds=10).mAP.value == pytest.approx(table["mAP"], abs=1e-9)


def test_sentence_scores() -> None:
    rows = stored("fense_aggregate")
    assert len(rows) == 8
    for row in rows:
        references = torch.tensor(row["emb_refs"], dtype=torch.float64)
        owners = torch.zeros(len(references), dtype=torch.int64)
        sbert = mean_cosine_similarity(torch.tensor([row["emb_cand"]], dtype=torch.float64), references, owners).item()
        factor = error_penalties([row["error_prob"]])[0]
        assert (factor < 1) == row["has_error"]
        assert sbert == pytest.approx(row["sbert_score"], abs=1e-6)
        assert sbert == pytest.approx(row["reference_script_reports"], abs=1e-6)
        assert sbert * factor == pytest.approx(row["fense_penalised"], abs=1e-6)


@pytest.mark.parametrize("case", stored("ngrams"), ids=lambda case: f"{len(case['candidates'])} sentences")
def test_runs_of_words_and_characters_as_in_sacrebleu(case: dict[str, Any]) -> None:
    texts = case["candidates"], case["references"]
    assert ngrams.corpus_bleu(*texts, rounds=10).value == pytest.approx(case["bleu"], abs=1e-12)
    assert ngrams.corpus_chrf(*texts, rounds=10).value == pytest.approx(case["chrf"], abs=1e-12)
