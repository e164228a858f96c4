import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from auricle.engine import json_schema as grammar
from auricle.engine.request import SamplingParams
from auricle.errors import ConfigError, MissingExtra, PromptError
from auricle.listen.model import AudioLM
from auricle.listen.options import OptionTrie, odds_of, pool_odds, write_options

from .test_model import NEW, noise

OPTIONS = ["a dog", "a dog barking loudly", "rain"]
QUESTION = "What is it?"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "sound": {"enum": ["dog", "rain"]},
        "loud": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "word": {"type": "string", "maxLength": 4},
    },
    "required": ["sound", "loud", "count", "word"],
    "additionalProperties": False,
}


def forced(model: AudioLM, waveform: Any, question: str, answer: str) -> float:
    """Log-probability of an answer, by one plain pass over prompt and answer."""
    content = [{"type": "audio", "audio": waveform}, {"type": "text", "text": question}]
    prompt = model.prompt_writer.write([{"role": "user", "content": content}])
    ends = min(model.loaded.eos_token_ids)
    ids = [*model.loaded.tokenizer.encode(answer, add_special_tokens=False).ids, ends]
    with torch.inference_mode():
        logits = model.loaded.model(torch.tensor([[*prompt.input_ids, *ids]]), list(prompt.clips))[0]
    logprobs = logits.float().log_softmax(-1)
    return sum(float(logprobs[len(prompt.input_ids) - 1 + place, token]) for place, token in enumerate(ids))


def test_odds_are_the_models_own(model: AudioLM) -> None:
    waveform = noise(1)
    choice = model.choose(waveform, QUESTION, OPTIONS)
    expected = [forced(model, waveform, QUESTION, option) for option in OPTIONS]
    assert [odds.logprob for odds in choice.odds] == pytest.approx(expected, abs=1e-3)
    assert sum(odds.probability for odds in choice.odds) == pytest.approx(1, abs=1e-5)
    assert sum(odds.mean_probability for odds in choice.odds) == pytest.approx(1, abs=1e-5)
    assert choice.answer == OPTIONS[max(range(3), key=lambda i: expected[i])]
    assert choice.segments[0].text == choice.answer and choice.receipt.complete
    by_token = model.choose(waveform, QUESTION, OPTIONS, per_token=True)
    assert by_token.answer == max(choice.odds, key=lambda odds: odds.mean_logprob).text


def test_letters_are_listed_and_every_spelling_counts(model: AudioLM) -> None:
    waveform = noise(1)
    choice = model.choose(waveform, QUESTION, ["dog", "rain"], letters=True)
    prompt = f"{QUESTION}\n(A) dog\n(B) rain"
    spellings = [forced(model, waveform, prompt, text) for text in ("B", "(B)", "(B) rain", "B. rain", "rain")]
    assert choice.odds[1].logprob == pytest.approx(math.log(sum(map(math.exp, spellings))), abs=1e-3)
    assert choice.answer in ("dog", "rain")


def test_many_are_chosen_each_as_if_alone(model: AudioLM, wavs: list[Path]) -> None:
    together = list(model.choose_many([wavs[0], "missing.wav", wavs[2]], QUESTION, OPTIONS, batch_size=2))
    assert [type(each).__name__ for each in together] == ["Choice", "AudioError", "Choice"]
    assert together[2] == model.choose(wavs[2], QUESTION, OPTIONS)


def test_odds_of_long_sources(model: AudioLM) -> None:
    short = AudioLM(model.loaded, max_audio_s=2.0)
    mean = short.choose(noise(5), "Is it fast?", ["yes", "no"])
    assert len(mean.segments) == 3 and "mean log-probability" in mean.receipt.notes[-1]
    there = short.choose(noise(5), "Is there a dog?", ["yes", "no"])
    assert "highest probability of yes" in there.receipt.notes[-1]
    pooled = pool_odds([(3.0, odds_of(["a", "b"], [-1, -2], [-1, -2])), (1.0, odds_of(["a", "b"], [-5, -2], [-5, -2]))])
    assert [odds.logprob for odds in pooled] == [-2.0, -2.0]


@pytest.mark.parametrize("options", [["one"], ["a", "a "], ["a", " "], "ab", ["a", "<|im_end|>"]])
def test_options_that_cannot_be_used(model: AudioLM, options: Any) -> None:
    with pytest.raises(ConfigError, match="option"):
        model.choose(noise(0.5), QUESTION, options)
    with pytest.raises(ConfigError, match="letters"):
        write_options(model.loaded.tokenizer, "?", [f"o{i}" for i in range(27)], end_id=0, letters=True)


def test_a_trie_allows_the_options_and_nothing_else() -> None:
    trie = OptionTrie([[5, 6], [5, 6, 7], [8]], {1, 2})
    assert trie.allowed([]) == [5, 8] and trie.allowed([5]) == [6]
    assert trie.allowed([5, 6]) == [1, 2, 7] and trie.allowed([8]) == [1, 2] == trie.allowed([9])


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_constrained_answer_is_one_of_the_choices(model: AudioLM, do_sample: bool) -> None:
    for seed in range(3):
        found = model.ask(
            noise(0.6, seed), QUESTION, choices=OPTIONS, do_sample=do_sample, temperature=3.0, seed=seed
        ).text
        assert found in OPTIONS
    short = AudioLM(model.loaded, max_audio_s=1.0)
    assert short.ask(noise(3), QUESTION, choices=OPTIONS).text in OPTIONS


def test_a_constrained_answer_is_json_of_the_schema(model: AudioLM) -> None:
    pytest.importorskip("llguidance")
    for seed in range(3):
        text = model.ask(noise(0.6, seed), QUESTION, schema=SCHEMA, do_sample=seed > 0, temperature=2.0, seed=seed).text
        value = json.loads(text)
        assert list(value) == SCHEMA["required"] and value["sound"] in ("dog", "rain")
        assert isinstance(value["loud"], bool) and value["count"] in range(10) and len(value["word"]) <= 4
    assert json.loads(model.ask(noise(0.6), QUESTION, schema={"enum": OPTIONS}).text) in OPTIONS
    (answer,) = model.ask_many([noise(0.6)], QUESTION, schema=SCHEMA)
    assert answer.value == json.loads(answer.text)


def test_json_that_is_cut_short_is_an_error_and_no_answer(model: AudioLM) -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(PromptError, match=r"3 tokens.*max_new_tokens"):
        model.ask(noise(0.6), QUESTION, schema=SCHEMA, max_new_tokens=3)


def test_schemas_that_cannot_be_used(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(ConfigError, match="schema cannot be used"):
        model.ask(noise(0.6), QUESTION, schema={"type": "shout"})
    with pytest.raises(ConfigError, match="expected one of them"):
        model.ask(noise(0.6), QUESTION, schema=SCHEMA, choices=OPTIONS)
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"auricle\[schema\]"):
        model.ask(noise(0.6), QUESTION, schema=SCHEMA)
    assert grammar.read_answer('{"a": 1}', {}, 9) == {"a": 1}


def test_several_questions_about_one_source(model: AudioLM, wavs: list[Path]) -> None:
    questions = ["What is it?", "Who speaks?", "Is it loud?"]
    found = model.ask_all(wavs[3], questions, sampling=SamplingParams(max_new_tokens=NEW))
    assert [answer.text for answer in found] == [model.ask(wavs[3], q, max_new_tokens=NEW).text for q in questions]
    assert all(answer.receipt.file == str(wavs[3]) for answer in found)
    with pytest.raises(ConfigError, match="expected a list"):
        model.ask_all(wavs[3], "What?")
