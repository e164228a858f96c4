"""MiDashengLM equals the reference from mel to generated ids: every kind of golden tensor, at its own tolerance."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import soundfile
import torch
from torch import Tensor

from auricle.engine.engine import generate
from auricle.engine.request import SamplingParams
from auricle.models.midashenglm import audio_token_count
from auricle.weights import LoadedLM, load_midashenglm

if TYPE_CHECKING:
    from conftest import Golden

SYSTEM = "midashenglm"
CLIPS = ["c0500ms", "c1000ms", "c1190ms", "c7300ms", "c10000ms", "c12400ms", "c31000ms"]
PROMPTS = ["p_text", "p_1s", "p_1s_nosys_textfirst", "p_10s", "p_12s", "p_31s", "p_two"]
MEL = 2e-3  # dB
FRAMES = 1e-4  # encoder and projector, absolute
LOGITS = 5e-4  # absolute
LOSS = 1e-4  # absolute
NORM_GRADIENT = 1e-3  # relative
NEW_TOKENS = 16


@pytest.fixture(scope="module")
def lm(golden: "Golden") -> LoadedLM:
    return load_midashenglm(golden.folder / "model")


@pytest.fixture(scope="module")
def clips(golden: "Golden") -> dict[str, Tensor]:
    files = sorted((golden.folder / "wav").iterdir())
    sounds = {file.stem: torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files}
    assert set(sounds) == set(CLIPS)
    return sounds


def clips_of(golden: "Golden", prompt: str, clips: dict[str, Tensor]) -> list[Tensor]:
    return [clips[name] for name in golden.facts["prompts"][prompt]["clips"]]


def check_last(golden: "Golden", name: str, logits: Tensor, saved: str) -> None:
    rows = logits if saved == "all" else logits[-int(saved.removeprefix("last ")) :]
    golden.check(name, rows, LOGITS, dim=0)


def greedy(lm: LoadedLM, prompts: Sequence[tuple[Tensor, Sequence[Tensor]]]) -> list[list[int]]:
    """16 most probable ids after each prompt, all prompts in one batch; the end token does not stop them."""
    requests = [SimpleNamespace(input_ids=ids.tolist(), clips=clips) for ids, clips in prompts]
    answers = generate(lm.model, requests, SamplingParams(max_new_tokens=NEW_TOKENS), eos_token_ids=())
    return [answer.ids for answer in answers]


@pytest.mark.parametrize("clip", ["c0500ms", "c1000ms", "c1190ms", "c7300ms"])
def test_log_mel(golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor], clip: str) -> None:
    golden.check(f"mel/{clip}", lm.model.audio_encoder.front_end(clips[clip])[0], MEL)


@torch.inference_mode()
def test_floor_in_decibel_is_each_clips_own(golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor]) -> None:
    front_end = lm.model.audio_encoder.front_end
    shared = golden["topdb/quiet_in_loud_batch_shared"]
    clip = clips["c1000ms"]
    loudest = 120.0 + shared.min().item()  # the other clip of the batch shows by the floor it sets
    loud = clip * 10 ** ((loudest - front_end(clip).max().item()) / 20)
    batch = torch.stack([1e-4 * clip, loud])
    golden.check("topdb/quiet_per_item", front_end(batch)[0], MEL)
    golden.check("topdb/quiet_in_loud_batch_shared", front_end(batch, batch_floor=True)[0], MEL)


@torch.inference_mode()
@pytest.mark.parametrize("clip", CLIPS)
def test_encoder_and_projector(golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor], clip: str) -> None:
    (frames,) = lm.model.audio_encoder.encode([clips[clip]])
    facts = golden.facts["clips"][clip]
    assert len(clips[clip]) == facts["samples"] and len(frames) == facts["patches"]
    golden.check(f"encoder/{clip}", frames, FRAMES, dim=0)
    (tokens,) = lm.model.audio_tokens([clips[clip]])
    assert len(tokens) == facts["audio_tokens"] == audio_token_count(len(clips[clip]))
    golden.check(f"projector/{clip}", tokens, FRAMES, dim=0)


@torch.inference_mode()
def test_all_clips_in_one_batch(golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor]) -> None:
    names = sorted(clips)
    for name, tokens in zip(names, lm.model.audio_tokens([clips[name] for name in names]), strict=True):
        golden.check(f"projector/{name}", tokens, FRAMES, dim=0)


def padded_tokens(lm: LoadedLM, clips: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Frames and audio tokens by the reference's rule: clips zero-padded to the longest, padding not attended to."""
    lengths = torch.tensor([len(clip) for clip in clips])
    frames = lm.model.audio_encoder(torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True), lengths)
    tokens = lm.model.audio_projector(list(frames))
    counts = [audio_token_count(len(clip)) for clip in clips]
    return list(frames), [row[:n] for row, n in zip(tokens, counts, strict=True)]


@torch.inference_mode()
def test_reference_padded_batches(golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor]) -> None:
    cases = sorted({key.split("/")[1] for key in golden.tensors if key.startswith("batch/")})
    if not cases:
        pytest.skip("only in the whole set")
    assert cases == ["b_all", "b_pair", "b_short"]
    for case in cases:
        names = golden.facts["batches"][case]
        for name, frames, tokens in zip(names, *padded_tokens(lm, [clips[n] for n in names]), strict=True):
            if f"batch/{case}/{name}/encoder" in golden:
                golden.check(f"batch/{case}/{name}/encoder", frames[: len(clips[name]) // 640], FRAMES)
            golden.check(f"batch/{case}/{name}/projector", tokens, FRAMES)


@torch.inference_mode()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_logits(golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor], prompt: str) -> None:
    ids = golden[f"input_ids/{prompt}"].long()[None]
    logits = lm.model(ids, clips_of(golden, prompt, clips))[0]
    check_last(golden, f"logits/{prompt}", logits, golden.facts["prompts"][prompt]["logits_saved_rows"])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_ids(golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor], prompt: str) -> None:
    (found,) = greedy(lm, [(golden[f"input_ids/{prompt}"], clips_of(golden, prompt, clips))])
    assert found == golden[f"generated/{prompt}"].tolist() == golden.facts["prompts"][prompt]["generated_ids"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_token_ids_of_the_rendered_prompt(golden: "Golden", lm: LoadedLM, prompt: str) -> None:
    facts = golden.facts["prompts"][prompt]
    bos, audio, eos = lm.audio_tokens
    text = facts["rendered"]
    for clip in facts["clips"]:
        count = golden.facts["clips"][clip]["audio_tokens"]
        text = text.replace(f"{bos}{audio}{eos}", f"{bos}{audio * count}{eos}\0", 1)
    ids = lm.tokenizer.encode(text.replace("\0", ""), add_special_tokens=False).ids
    assert ids == golden[f"input_ids/{prompt}"].tolist()
    assert len(ids) == facts["n_tokens"]


def test_left_padded_batch(golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor]) -> None:
    facts = golden.facts["batched"]
    ids, mask = golden["batched/input_ids"].long(), golden["batched/attention_mask"].long()
    sounds = [clips[name] for name in facts["audio_batch"]]
    with torch.inference_mode():
        logits = lm.model(ids, sounds, mask)
    position = 0
    for row, prompt in enumerate(facts["order"]):
        count = len(golden.facts["prompts"][prompt]["clips"])
        with torch.inference_mode():
            alone = lm.model(golden[f"input_ids/{prompt}"].long()[None], sounds[position : position + count])
        position += count
        assert (logits[row, -1] - alone[0, -1]).abs().max() <= LOGITS
    order = facts["order"]
    found = greedy(lm, [(golden[f"input_ids/{p}"], clips_of(golden, p, clips)) for p in order])
    assert found == golden["batched/generated"].tolist()
    assert found == [golden[f"generated/{prompt}"].tolist() for prompt in order]


@torch.inference_mode()
def test_left_padded_batch_with_the_reference_padding_of_clips(
    golden: "Golden", lm: LoadedLM, clips: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm.model, "audio_tokens", lambda sounds: padded_tokens(lm, sounds)[1])
    ids, mask = golden["batched/input_ids"].long(), golden["batched/attention_mask"].long()
    logits = lm.model(ids, [clips[name] for name in golden.facts["batched"]["audio_batch"]], mask)
    golden.check("batched/last_logits", logits[:, -1], LOGITS)


def test_training_loss_and_gradients(golden: "Golden", clips: dict[str, Tensor]) -> None:
    model = load_midashenglm(golden.folder / "model").model
    ids, labels = golden["train/input_ids"].long()[None], golden["train/labels"].long()[None]
    loss = model.loss(ids, [clips["c1000ms"]], labels)
    golden.check("train/loss", loss, LOSS)
    loss.backward()
    parameters = dict(model.named_parameters())
    norms = golden.facts["train"]["grad_norm"]
    assert len(norms) == 9
    for name, expected in norms.items():
        off = abs(parameters[name].grad.norm().item() / expected - 1)
        golden.note("train gradient norms (relative)", off)
        assert off <= NORM_GRADIENT, f"{name}: off by {off:.1e}"


@torch.inference_mode()
def test_adapter(golden: "Golden", clips: dict[str, Tensor]) -> None:
    lm = load_midashenglm(golden.folder / "model", adapter=golden.folder / "lora")
    assert lm.identity["adapter_sha256"]
    golden.check("lora/projector/c1000ms", lm.model.audio_tokens([clips["c1000ms"]])[0], FRAMES, dim=0)
    ids = golden["input_ids/p_1s"].long()[None]
    golden.check("lora/logits/p_1s", lm.model(ids, [clips["c1000ms"]])[0], LOGITS, dim=0)


@torch.inference_mode()
def test_bfloat16_keeps_the_direction(golden: "Golden", clips: dict[str, Tensor]) -> None:
    lm = load_midashenglm(golden.folder / "model", dtype="bfloat16")
    names = ["c1000ms", "c7300ms", "c12400ms"]
    for name, tokens in zip(names, lm.model.audio_tokens([clips[name] for name in names]), strict=True):
        kept = tokens[:: golden.strides.get(f"projector/{name}", 1)].float()
        cosine = torch.cosine_similarity(kept, golden[f"projector/{name}"], dim=-1).min().item()
        golden.note("bfloat16 projector, 1 - cosine", 1 - cosine)
        assert cosine >= 0.999
    ids = golden["input_ids/p_1s"].long()[None]
    logits = lm.model(ids, [clips["c1000ms"]])[0][:: golden.strides.get("logits/p_1s", 1)].float()
    cosine = torch.cosine_similarity(logits, golden["logits/p_1s"], dim=-1).min().item()
    golden.note("bfloat16 logits, 1 - cosine", 1 - cosine)
    assert cosine >= 0.999
