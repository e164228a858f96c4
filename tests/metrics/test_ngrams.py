import numpy as np
import pytest

from auricle.metrics import ngrams


def test_shared_words() -> None:
    assert ngrams.sentence_bleu("A dog barks loud", ["a dog barks loud"]) == [1.0] * 4
    assert ngrams.sentence_bleu("", ["a"]) == ngrams.sentence_bleu("a", []) == [0.0] * 4
    short = ngrams.sentence_bleu("a dog", ["a dog barks at night"])
    assert short[:2] == pytest.approx([np.exp(-1.5)] * 2) and short[2:] == [0.0, 0.0]
    assert ngrams.sentence_chrf("dog", ["cat", "dog"]) == 1.0
    found = ngrams.corpus_bleu(["a dog barks at night", "x"], [["a dog barks at night"], ["y"]], rounds=50)
    assert found.low <= found.value <= found.high and found.n == 2


def test_of_references_equally_near_in_length_mecat_takes_the_first() -> None:
    longer_first = ngrams.sentence_bleu("a b", ["a b c", "a"])
    assert longer_first[0] == pytest.approx(np.exp(1 - 3 / 2)) and ngrams.sentence_bleu("a b", ["a", "a b c"])[0] == 1.0
