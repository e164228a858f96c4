from typing import Any

import pytest
import torch
from torch import Tensor

from auricle.engine.engine import generate
from auricle.engine.request import Generation, SamplingParams
from auricle.errors import ConfigError, PromptError
from auricle.listen.model import AudioLM
from auricle.weights.processor import Prompt

from ..conftest import FACTS, PROMPTS

NEW = 16


def run(model: AudioLM, prompts: list[Prompt], **settings: Any) -> list[Generation]:
    ends = settings.pop("eos_token_ids", ())
    sampling = SamplingParams(**{"max_new_tokens": NEW, **settings})
    return generate(model.loaded.model, prompts, sampling, eos_token_ids=ends)


def test_single_runs_are_the_reference_ones(
    model: AudioLM, prompts: dict[str, Prompt], golden: dict[str, Tensor], prompt_name: str
) -> None:
    (found,) = run(model, [prompts[prompt_name]])
    assert found.ids == golden[f"generated/{prompt_name}"].flatten().tolist()
    assert found.stopped == "length"


def test_the_batch_is_the_reference_one(model: AudioLM, prompts: dict[str, Prompt], golden: dict[str, Tensor]) -> None:
    found = run(model, [prompts[name] for name in FACTS["batched"]["order"]])
    assert [each.ids for each in found] == golden["batched/generated"].tolist()


@pytest.fixture(scope="module")
def alone(model: AudioLM, prompts: dict[str, Prompt]) -> list[list[int]]:
    return [run(model, [prompts[name]])[0].ids for name in PROMPTS]


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_that_finish_early_change_nothing(
    model: AudioLM, prompts: dict[str, Prompt], alone: list[list[int]], threads: int
) -> None:
    # Every row ends at another place: at a token that no other row has by then.
    ends = sorted({ids[3 + 2 * row] for row, ids in enumerate(alone)})
    expected = []
    for ids in alone:
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        expected.append((ids[:stop], "length" if stop is None else "eos"))
    assert len({len(ids) for ids, _ in expected}) > 2
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = run(model, list(prompts.values()), eos_token_ids=ends)
    finally:
        torch.set_num_threads(before)
    assert [(each.ids, each.stopped) for each in found] == expected


SAMPLED = {"do_sample": True, "temperature": 1.3, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.2}


def test_samples_do_not_depend_on_the_batch(model: AudioLM, prompts: dict[str, Prompt]) -> None:
    together = run(model, list(prompts.values()), seed=3, **SAMPLED)
    assert [each.ids for each in together] == [
        run(model, [prompt], seed=3, **SAMPLED)[0].ids for prompt in prompts.values()
    ]
    other = run(model, list(prompts.values()), seed=4, **SAMPLED)
    assert [each.ids for each in together] != [each.ids for each in other]


def test_without_a_seed_samples_differ(model: AudioLM, prompts: dict[str, Prompt]) -> None:
    first, second = (run(model, [prompts["p_1s"]], do_sample=True)[0].ids for _ in range(2))
    assert first != second


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_the_narrowest_sampling_is_greedy(
    model: AudioLM, prompts: dict[str, Prompt], alone: list[list[int]], narrow: dict[str, float]
) -> None:
    found = run(model, list(prompts.values()), do_sample=True, seed=0, **narrow)
    assert [each.ids for each in found] == alone


@torch.inference_mode()
def test_top_p_keeps_the_smallest_sufficient_set(model: AudioLM, prompts: dict[str, Prompt]) -> None:
    prompt = prompts["p_1s"]
    share = model.loaded.model(torch.tensor([prompt.input_ids]), prompt.clips)[0, -1].softmax(-1)
    ordered, order = share.sort(descending=True)
    allowed = set(order[: int((ordered.cumsum(0) < 0.6).sum()) + 1].tolist())
    sampled = {
        run(model, [prompt], max_new_tokens=1, do_sample=True, top_p=0.6, seed=seed)[0].ids[0] for seed in range(40)
    }
    assert 1 < len(sampled) and sampled <= allowed


def test_a_strong_penalty_forbids_repeats(model: AudioLM, prompts: dict[str, Prompt], alone: list[list[int]]) -> None:
    assert any(len(set(ids)) < len(ids) for ids in alone)
    found = run(model, list(prompts.values()), repetition_penalty=1e6)
    assert all(len(set(each.ids)) == NEW for each in found)


def test_an_early_end_can_be_forbidden(model: AudioLM, prompts: dict[str, Prompt], alone: list[list[int]]) -> None:
    first = alone[0][0]
    prompt = prompts[PROMPTS[0]]
    ended = run(model, [prompt], eos_token_ids=[first])[0]
    assert (ended.ids, ended.stopped) == ([], "eos") and ended.mean_logprob < 0
    forced = run(model, [prompt], eos_token_ids=[first], min_new_tokens=2)[0]
    assert len(forced.ids) >= 2 and first not in forced.ids


@torch.inference_mode()
def test_logprob_is_the_models(model: AudioLM, prompts: dict[str, Prompt]) -> None:
    prompt = prompts["p_two"]
    (found,) = run(model, [prompt])
    logits = model.loaded.model(torch.tensor([[*prompt.input_ids, *found.ids]]), prompt.clips)[0]
    steps = logits[len(prompt.input_ids) - 1 : -1].log_softmax(-1)
    expected = steps.gather(1, torch.tensor(found.ids)[:, None]).mean().item()
    assert found.mean_logprob == pytest.approx(expected, abs=1e-4)
    assert run(model, [prompt], **SAMPLED, seed=0)[0].mean_logprob < expected


def test_no_prompts_no_answers(model: AudioLM) -> None:
    assert run(model, []) == []


def test_prompts_that_do_not_fit_are_refused(model: AudioLM) -> None:
    context = model.loaded.model.decoder.config.max_position_embeddings
    with pytest.raises(PromptError, match=f"context holds {context}"):
        run(model, [Prompt([1] * context, [])])
    with pytest.raises(PromptError, match="empty"):
        run(model, [Prompt([], [])])
    with pytest.raises(PromptError, match="placeholders"):
        run(model, [Prompt([1, model.loaded.model.config.audio_token_id], [])])


@pytest.mark.parametrize(
    "setting",
    [
        {"max_new_tokens": 0},
        {"min_new_tokens": 200},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        SamplingParams(**setting)
