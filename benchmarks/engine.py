"""Time the engine of the audio language model against plain transformers `generate`, same weights, in alternation.

python benchmarks/engine.py [--only questions …] [--rounds 5] [--threads 2] [--json] [-o FILE] [--quick]
python benchmarks/engine.py --only model_requests --model auricle-tiny --quantize int8

The reference does what the published model code does: clips zero-padded to the longest of the batch and masked, chunks
one after the other, prompts padded on the left, one static batch that runs until its longest answer is done. Speed does
not need real weights, so the larger model has random ones, the same for both. Before a row is timed, both must give the
same frames or tokens, clip by clip and prompt by prompt, since padding changes the reference's frames at a clip's end.
A speed-up is the median of the ratios of neighbouring runs. GPU rows follow where there is a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from pairs import Row, compare, make_clips, options, run_rows, seconds, spread, write
from torch import Tensor

from auricle.data.wording import CAPTION_PROMPT
from auricle.engine.engine import Engine
from auricle.engine.request import SamplingParams
from auricle.models.dasheng import Dasheng, DashengConfig
from auricle.models.midashenglm import MiDashengLM, MiDashengLMConfig, audio_token_count
from auricle.models.qwen import QwenConfig, QwenForCausalLM
from auricle.weights import LoadedLM, load_midashenglm
from auricle.weights.loaders import AudioTokens, prompt_writer
from auricle.weights.processor import Prompt, PromptWriter

RATE = 16_000  # Hz
AUDIO = 3  # placeholder of the random model


ENCODER = DashengConfig(embed_dim=768, depth=4, num_heads=12, attend="whole")
LM_ENCODER = DashengConfig(embed_dim=384, depth=6, num_heads=6, attend="whole")
DECODER = QwenConfig(  # 117 M parameters
    vocab_size=8192,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=4,
    max_position_embeddings=4096,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much work a row is."""

    encoder: DashengConfig = ENCODER
    lm_encoder: DashengConfig = LM_ENCODER  # of the language model
    decoder: QwenConfig = DECODER
    clips_s: tuple[float, ...] = (2.1, 3.4, 5.0, 7.7, 9.2, 31.0)
    requests: tuple[tuple[float, int, int], ...] = (  # seconds of audio, words of the prompt, tokens of the answer
        *((2.0, 12, 6), (4.5, 30, 48), (1.0, 12, 4), (9.5, 20, 12), (20.0, 12, 8), (3.0, 60, 24), (6.0, 12, 64)),
        *((2.5, 16, 6), (12.0, 12, 16), (1.5, 100, 8), (5.0, 12, 32), (30.0, 24, 12), (2.0, 12, 4), (8.0, 40, 10)),
        *((3.5, 12, 20), (1.2, 12, 6)),
    )
    questions: tuple[int, int, int, float] = (3, 6, 6, 20.0)  # clips, questions each, tokens an answer, seconds
    together: int = 8  # questions the reference has in one batch
    gpu_batches: tuple[int, ...] = (1, 8, 64, 512)


QUICK = Scale(
    encoder=DashengConfig(embed_dim=64, depth=2, num_heads=2, attend="whole"),
    lm_encoder=DashengConfig(embed_dim=64, depth=2, num_heads=2, attend="whole"),
    decoder=replace(
        DECODER,
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=0,
    ),
    clips_s=(0.5, 2.0, 12.0),
    requests=((1.0, 5, 3), (4.0, 12, 9), (0.5, 20, 2), (2.0, 5, 4)),
    questions=(2, 3, 3, 4.0),
    together=3,
    gpu_batches=(1, 4),
)
# The released 7B model: Qwen2.5-7B shapes and Dasheng-0.6B.
RELEASED = Scale(
    lm_encoder=DashengConfig(embed_dim=1280, depth=32, num_heads=16, attend="whole"),
    decoder=QwenConfig(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    ),
)


def random_model(scale: Scale, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedLM:
    """A language model that was never trained, without an end token, so that every answer has the length asked for."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = MiDashengLM(
                MiDashengLMConfig(encoder=scale.lm_encoder, text=scale.decoder, audio_token_id=AUDIO)
            ).eval()
    finally:
        torch.set_default_dtype(before)
    model.audio_encoder.front_end.float()
    model.audio_encoder.init_bn.float()
    tokenizer = load_midashenglm("auricle-tiny").tokenizer
    return LoadedLM(
        model=model,
        tokenizer=tokenizer,
        chat_template="",
        eos_token_ids=(),
        pad_token_id=0,
        audio_tokens=AudioTokens(),
        identity={"name": "random"},
    )


def random_prompt(clip: Tensor, words: int, seed: int, vocabulary: int) -> Prompt:
    """Four tokens, the clip, random words."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(4, vocabulary, (words,), generator=generator).tolist()
    return Prompt([1, 2, 1, 2, *[AUDIO] * audio_token_count(len(clip)), *text], [clip])


@cache
def stock_of(decoder: QwenForCausalLM) -> Any:
    """The same weights in the Qwen2 of transformers."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    ours = asdict(decoder.config)
    settings = {key: value for key, value in ours.items() if key in Qwen2Config().to_dict()}
    settings["rope_parameters"] = {"rope_theta": ours["rope_theta"], "rope_type": "default"}
    stock = Qwen2ForCausalLM(Qwen2Config(**settings)).to(decoder.device, decoder.dtype).eval()
    stock.load_state_dict(decoder.state_dict())
    return stock


def padded_frames(encoder: Dasheng, clips: Sequence[Tensor]) -> list[Tensor]:
    """Frames (P_i, D) by the published rule: zero-padded to the longest, padding masked, chunk after chunk."""
    lengths = [len(clip) // 640 for clip in clips]
    mel = encoder.front_end(torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True))
    tokens = encoder.patch_embed.proj(encoder.init_bn(mel)[:, None]).squeeze(2)  # (B, D, P)
    size = encoder.config.chunk_tokens
    valid = torch.arange(tokens.shape[-1])[None] < torch.tensor(lengths)[:, None]
    chunks = []
    for start in range(0, tokens.shape[-1], size):
        chunk = tokens[:, :, None, start : start + size]
        x = (chunk + encoder.time_pos_embed[..., : chunk.shape[-1]] + encoder.freq_pos_embed)[:, :, 0].transpose(1, 2)
        mask = valid[:, None, None, start : start + size]
        for block in encoder.blocks:
            x = padded_block(block, x, mask)
        chunks.append(encoder.norm(x))
    counts = [(1 + len(clip) // 160) // 4 for clip in clips]
    return [row[:count] for row, count in zip(torch.cat(chunks, dim=1), counts, strict=True)]


def padded_block(block: Any, x: Tensor, mask: Tensor) -> Tensor:
    """A transformer block with torch's own linear layers on (B, P, D)."""
    attn, mlp = block.attn, block.mlp
    qkv = F.linear(block.norm1(x), attn.qkv.weight, attn.qkv.bias)
    query, key, value = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
    x = x + F.linear(mixed, attn.proj.weight, attn.proj.bias)
    hidden = F.gelu(F.linear(block.norm2(x), mlp.fc1.weight, mlp.fc1.bias))
    return x + F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias)


@torch.inference_mode()
def reference_answers(loaded: LoadedLM, prompts: Sequence[Prompt], lengths: Sequence[int]) -> list[list[int]]:
    """One static batch through `generate`: padded clips, prompts padded on the left, as long as the longest answer."""
    lm = loaded.model
    clips = [lm.pad(clip) for prompt in prompts for clip in prompt.clips]
    longest = max(len(prompt.input_ids) for prompt in prompts)
    ids = torch.full((len(prompts), longest), loaded.pad_token_id)
    for row, prompt in zip(ids, prompts, strict=True):
        row[longest - len(prompt.input_ids) :] = torch.tensor(prompt.input_ids)
    mask = torch.zeros_like(ids)
    for row, prompt in zip(mask, prompts, strict=True):
        row[longest - len(prompt.input_ids) :] = 1
    embeddings = lm.place(ids, lm.audio_projector(padded_frames(lm.audio_encoder, clips)))
    answers = stock_of(lm.decoder).generate(
        inputs_embeds=embeddings,
        attention_mask=mask,
        max_new_tokens=max(lengths),
        do_sample=False,
        eos_token_id=list(loaded.eos_token_ids) or None,
        pad_token_id=loaded.pad_token_id,
    )
    ends = set(loaded.eos_token_ids)
    cut = []
    for row, length in zip(answers.tolist(), lengths, strict=True):
        stop = next((place for place, token in enumerate(row[:length]) if token in ends), length)
        cut.append(row[:stop])
    return cut


def in_batches(loaded: LoadedLM, prompts: Sequence[Prompt], lengths: Sequence[int], size: int) -> list[list[int]]:
    """The reference's answers, ``size`` prompts a batch."""
    found = []
    for start in range(0, len(prompts), size):
        found += reference_answers(loaded, prompts[start : start + size], lengths[start : start + size])
    return found


def engine_answers(loaded: LoadedLM, prompts: Sequence[Prompt], lengths: Sequence[int]) -> list[list[int]]:
    """Ours, by an engine that has seen nothing yet."""
    samplings = [SamplingParams(max_new_tokens=length) for length in lengths]
    return [answer.ids for answer in Engine(loaded).generate(prompts, samplings)]


def agreement(loaded: LoadedLM, exact: LoadedLM, prompts: Sequence[Prompt], lengths: Sequence[int]) -> float:
    """Share of answers in which the engine and the reference, prompt by prompt, choose the same tokens throughout."""
    ours = engine_answers(loaded, prompts, lengths)
    theirs = in_batches(exact, prompts, lengths, 1)
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(prompts)


@torch.inference_mode()
def encoder(args: argparse.Namespace, scale: Scale) -> Row:
    """Clips of mixed lengths through the encoder: padded against packed."""
    torch.manual_seed(0)
    network, clips = Dasheng(scale.encoder).eval(), make_clips(scale.clips_s)
    alone = [padded_frames(network, [clip])[0] for clip in clips]
    found = max((a - b).abs().max().item() for a, b in zip(network.encode(clips), alone, strict=True))
    assert found < 1e-4, f"the encoders disagree by {found}"
    return compare(
        f"encoder, {len(clips)} clips of {min(scale.clips_s):g}-{max(scale.clips_s):g} s",
        lambda: network.encode(clips),
        lambda: padded_frames(network, clips),
        args.rounds,
        target=2.5,
        max_abs_difference=found,
    )


def _requests(
    args: argparse.Namespace, name: str, loaded: LoadedLM, exact: LoadedLM, given: list[tuple[Prompt, int]], size: int
) -> Row:
    prompts, lengths = [prompt for prompt, _ in given], [length for _, length in given]
    same = agreement(loaded, exact, prompts, lengths)
    assert same >= 0.9 or args.quantize, f"only {same:.0%} of the answers agree"
    row = compare(
        name,
        lambda: engine_answers(loaded, prompts, lengths),
        lambda: in_batches(exact, prompts, lengths, size),
        args.rounds,
        agreeing_answers=round(same, 3),
        decoder_parameters=sum(p.numel() for p in exact.model.decoder.parameters()),
    )
    return row | {"requests_per_s": round(len(given) / row["ours_s"], 2)}


def requests(args: argparse.Namespace, scale: Scale) -> Row:
    """Requests of mixed lengths that come together; random weights."""
    loaded = random_model(scale)
    clips = make_clips([each[0] for each in scale.requests])
    vocabulary = scale.decoder.vocab_size
    given = [
        (random_prompt(clip, words, seed, vocabulary), length)
        for seed, (clip, (_, words, length)) in enumerate(zip(clips, scale.requests, strict=True))
    ]
    row = _requests(args, f"{len(given)} mixed requests, random weights", loaded, loaded, given, len(given))
    return row | {"target": 2.0}


def questions(args: argparse.Namespace, scale: Scale) -> Row:
    """Several questions on each clip, audio first; random weights."""
    loaded = random_model(scale)
    clips, each, length, clip_s = scale.questions
    vocabulary = scale.decoder.vocab_size
    given = [
        (random_prompt(clip, 10 + number, 100 * index + number, vocabulary), length)
        for index, clip in enumerate(make_clips([clip_s] * clips))
        for number in range(each)
    ]
    row = _requests(args, f"{each} questions on each of {clips} clips", loaded, loaded, given, scale.together)
    return row | {"target": 3.0}


def model_requests(args: argparse.Namespace, scale: Scale) -> Row:
    """Captions of clips of mixed lengths by a trained model, which end where the model ends them."""
    exact = load_midashenglm(args.model)
    # `quantize` is passed on where it is asked for; the reference stays in float32.
    loaded = load_midashenglm(args.model, quantize=args.quantize) if args.quantize else exact
    writer = prompt_writer(exact)
    lengths_s = [min(each[0], 10.0) for each in scale.requests]
    given = [(_question(writer, clip, CAPTION_PROMPT), 48) for clip in make_clips(lengths_s)]
    name = f"{len(given)} captions by {args.model}" + (f", {args.quantize}" if args.quantize else "")
    return _requests(args, name, loaded, exact, given, len(given))


def model_questions(args: argparse.Namespace, scale: Scale) -> Row:
    """Several questions on each clip to a trained model."""
    exact = load_midashenglm(args.model)
    loaded = load_midashenglm(args.model, quantize=args.quantize) if args.quantize else exact
    writer = prompt_writer(exact)
    texts = (
        "Is there speech?",
        "Is there music?",
        "What is heard?",
        "How many people speak?",
        "Where is this?",
        "Who?",
    )
    clips = make_clips([10.0] * scale.questions[0])
    given = [(_question(writer, clip, text), 16) for clip in clips for text in texts]
    name = f"{len(texts)} questions on each of {len(clips)} clips to {args.model}"
    return _requests(args, name, loaded, exact, given, scale.together)


def _question(writer: PromptWriter, clip: Tensor, text: str) -> Prompt:
    content = [{"type": "audio", "audio": clip.numpy()}, {"type": "text", "text": text}]
    return writer.write([{"role": "user", "content": content}])


def gpu(args: argparse.Namespace, scale: Scale, device: str = "cuda") -> list[Row]:
    """Time to the first token of a 30 s clip and tokens a second, in bfloat16 at the released size; random weights."""
    loaded = random_model(scale, device, torch.bfloat16)
    config = loaded.model.decoder.config
    clip = make_clips([30.0])[0]
    prompts = [random_prompt(clip, 30, seed, config.vocab_size) for seed in range(max(scale.gpu_batches))]
    bandwidth = _bandwidth(device)
    weights = sum(p.nbytes for name, p in loaded.model.decoder.named_parameters() if "embed_tokens" not in name)

    def first_token() -> None:
        next(iter(Engine(loaded).stream(prompts[0], SamplingParams(max_new_tokens=2))))

    first_token()
    times = [seconds(first_token) for _ in range(args.rounds)]
    rows: list[Row] = [
        {"name": "GPU, time to the first token, 30 s", "first_token_ms": spread([1e3 * t for t in times], 1)}
    ]
    for batch in scale.gpu_batches:
        engine = Engine(loaded, max_batch=batch, prefill_tokens=1 << 14)
        runs = [
            seconds(lambda n=n, e=engine, b=batch: e.generate(prompts[:b], SamplingParams(max_new_tokens=n)))
            for n in (8, 8, 72)
        ]
        per_token = (runs[2] - runs[1]) / 64
        rows.append(
            {
                "name": f"GPU, batch {batch}",
                "tokens_per_s": round(batch / per_token, 1),
                "roofline_share": round(weights / bandwidth / per_token, 3),  # of reading the weights once a step
                "requests_per_s": round(batch / runs[2], 2),  # 72 tokens each, the clip known
            }
        )
    return rows


def _bandwidth(device: str) -> float:
    """Measured bytes a second of reading memory, in a copy."""
    source = torch.zeros(1 << 28 if device == "cuda" else 1 << 24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    copy()
    return 2 * source.nbytes / min(seconds(copy) for _ in range(10))


ROWS = {row.__name__: row for row in (encoder, requests, questions, model_requests, model_questions)}


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, rounds=5, threads=2)
    parser.add_argument("--only", nargs="+", choices=[*ROWS, "gpu"], help="rows to measure; all by default")
    parser.add_argument("--model", default="auricle-tiny", help="trained model of the rows model_*")
    parser.add_argument("--quantize", help="of the engine's model in the rows model_*, as load_midashenglm takes it")
    parser.add_argument("--quick", action="store_true", help="small networks, one round: does it run at all?")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    scale, args.rounds = (QUICK, 1) if args.quick else (Scale(), args.rounds)
    rows = {name: partial(row, args, scale) for name, row in ROWS.items()}
    on_gpu = QUICK if args.quick else replace(RELEASED, gpu_batches=scale.gpu_batches)
    write(run_rows(args, rows, partial(gpu, args, on_gpu)), args)


if __name__ == "__main__":
    main()
