"""The engine gives the reference's tokens in every mode: alone, in batches, streamed, from caches, at any time."""

import random
from typing import TYPE_CHECKING

import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auricle.engine.engine import Engine
from auricle.engine.request import SamplingParams
from auricle.engine.scheduler import Request
from auricle.weights import LoadedLM, load_midashenglm
from auricle.weights.processor import Prompt

if TYPE_CHECKING:
    from conftest import Golden

SYSTEM = "midashenglm"
PROMPTS = ["p_text", "p_1s", "p_1s_nosys_textfirst", "p_10s", "p_12s", "p_31s", "p_two"]
GREEDY = SamplingParams(max_new_tokens=16)
LOGPROBS = 1e-4  # absolute


@pytest.fixture(scope="module")
def lm(golden: "Golden") -> LoadedLM:
    loaded = load_midashenglm(golden.folder / "model")
    # The stored answers run on behind end tokens.
    object.__setattr__(loaded, "eos_token_ids", ())
    return loaded


@pytest.fixture(scope="module")
def prompts(golden: "Golden") -> dict[str, Prompt]:
    def clip(name: str) -> torch.Tensor:
        (file,) = (golden.folder / "wav").glob(f"{name}.*")
        return torch.from_numpy(soundfile.read(file, dtype="float32")[0])

    return {
        name: Prompt(golden[f"input_ids/{name}"].tolist(), [clip(c) for c in golden.facts["prompts"][name]["clips"]])
        for name in PROMPTS
    }


@pytest.fixture(scope="module")
def expected(golden: "Golden") -> dict[str, list[int]]:
    return {name: golden[f"generated/{name}"].tolist() for name in PROMPTS}


def test_alone(lm: LoadedLM, prompts: dict[str, Prompt], expected: dict[str, list[int]]) -> None:
    for name in PROMPTS:
        (found,) = Engine(lm).generate([prompts[name]], GREEDY)
        assert (found.ids, found.stopped) == (expected[name], "length")


def test_together_then_from_the_caches(
    lm: LoadedLM, prompts: dict[str, Prompt], expected: dict[str, list[int]]
) -> None:
    engine = Engine(lm)
    batch, wanted = [prompts[name] for name in PROMPTS], [expected[name] for name in PROMPTS]
    assert [found.ids for found in engine.generate(batch, GREEDY)] == wanted
    encoded, read = engine.encoded_clips, engine.counts.read_tokens
    assert encoded == len({clip.numpy().tobytes() for prompt in batch for clip in prompt.clips})
    assert [found.ids for found in engine.generate(batch, GREEDY)] == wanted
    assert engine.encoded_clips == encoded
    # All but the block that a prompt ends in.
    assert engine.counts.read_tokens - read == sum(1 + (len(p.input_ids) - 1) % 16 for p in batch)


def test_streamed(lm: LoadedLM, prompts: dict[str, Prompt], expected: dict[str, list[int]]) -> None:
    engine = Engine(lm)
    streams = {name: engine.stream(prompts[name], GREEDY) for name in PROMPTS}
    found: dict[str, list[int]] = {name: [] for name in PROMPTS}
    texts = dict.fromkeys(PROMPTS, "")
    while streams:
        for name in list(streams):
            token = next(streams[name], None)
            if token is None:
                del streams[name]
            else:
                found[name].append(token.id)
                texts[name] += token.text
    assert found == expected
    assert texts == {name: lm.tokenizer.decode(ids) for name, ids in expected.items()}


@given(
    seed=st.integers(0, 2**16),
    max_batch=st.integers(1, 8),
    prefill_tokens=st.sampled_from([5, 16, 50, 2048]),
    prefix_cache_mb=st.sampled_from([0, 0.05, 64]),
)
@settings(max_examples=5, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whenever_requests_arrive(
    lm: LoadedLM,
    prompts: dict[str, Prompt],
    expected: dict[str, list[int]],
    seed: int,
    max_batch: int,
    prefill_tokens: int,
    prefix_cache_mb: float,
) -> None:
    rng = random.Random(seed)
    engine = Engine(lm, max_batch=max_batch, prefill_tokens=prefill_tokens, prefix_cache_mb=prefix_cache_mb)
    names = rng.choices(PROMPTS, k=6)
    requests: list[tuple[str, int, Request]] = []
    for name in names:
        count = rng.randint(1, 16)
        requests.append((name, count, engine.submit(prompts[name], SamplingParams(max_new_tokens=count))))
        for _ in range(rng.choice([0, 0, 1, 5, 30])):
            engine.step()
    rng.shuffle(requests)
    for name, count, request in requests:
        assert engine.result(request).ids == expected[name][:count]


@torch.inference_mode()
def test_scores_are_the_networks(lm: LoadedLM, prompts: dict[str, Prompt], expected: dict[str, list[int]]) -> None:
    engine = Engine(lm, prefill_tokens=24)
    continuations = [expected["p_two"], expected["p_10s"][:3], [5], [], [*expected["p_two"][:4], 9]]
    scores = engine.score(prompts["p_two"], continuations)
    for ids, found in zip(continuations, scores, strict=True):
        whole = torch.tensor([[*prompts["p_two"].input_ids, *ids]])
        logits = lm.model(whole, prompts["p_two"].clips)[0]
        steps = logits[len(prompts["p_two"].input_ids) - 1 : -1].log_softmax(-1)
        wanted = steps.gather(1, torch.tensor(ids, dtype=torch.long)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found), wanted, atol=LOGPROBS, rtol=0)
    (greedy,) = engine.generate([prompts["p_two"]], GREEDY)
    torch.testing.assert_close(torch.tensor(greedy.logprobs), torch.tensor(scores[0]), atol=LOGPROBS, rtol=0)
