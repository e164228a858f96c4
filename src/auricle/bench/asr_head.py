"""The ASR head of X-ARES: a small adapter turns frozen frames into inputs of a frozen language model.

A sequence is ``[adapted frames] separator text end``; only the adapter is trained, by the loss on text and end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.bench.heads import cosine_rates
from auricle.data.order import Permutation
from auricle.engine.engine import generate
from auricle.engine.request import SamplingParams
from auricle.errors import ConfigError, DataError
from auricle.metrics.word_errors import wer_inv

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from auricle.models.midashenglm import MiDashengLM
    from auricle.models.stock_decoder import Decoder

Validation = Literal["loss", "teacher_forced"]

SEPARATOR = "<|vision_end|>"  # between frames and text; X-ARES `models/asr.py`, a token that Qwen2.5 knows already
END = "<|endoftext|>"  # eos token of Qwen2.5-0.5B
MAX_NEW_TOKENS = 200  # the same file, as the next
REPETITION_PENALTY = 1.1
_FRAME = -1  # the place of a frame among token numbers; no vocabulary has it
_IGNORED = -100  # label of a position without loss; torch's default


@dataclass(frozen=True, kw_only=True, slots=True)
class AsrSettings:
    """How the adapter is trained; the defaults are those of X-ARES `librispeech_asr_task.py`."""

    epochs: int = 10
    batch_size: int = 4  # utterances
    rate: float = 1e-3  # falls by `heads.cosine_rates`
    seed: int = 42  # of shuffles
    # How the epoch is picked: by the loss on validation text, or, as released, by WER_inv of the likeliest next tokens
    # given the true ones before them, which is better than any transcript.
    validation: Validation = "loss"

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or self.rate <= 0 or self.seed < 0:
            raise ConfigError(
                f"epochs {self.epochs}, batch {self.batch_size}, rate {self.rate} and seed {self.seed}; expected all "
                "above 0, or a seed of 0"
            )
        if self.validation not in get_args(Validation):
            raise ConfigError(f"validation is {self.validation!r}, expected one of {', '.join(get_args(Validation))}")


class Utterance(NamedTuple):
    """Speech and its transcript."""

    frames: Tensor  # (T, D), float16 or float32
    text: str


class AsrAdapter(nn.Module):
    """Frames to vectors of the language model: proj(silu(fc_1(x)) · fc_2(x))."""

    def __init__(self, dim: int, hidden: int = 4864, width: int = 896) -> None:
        """New weights from torch's random state.

        Args:
            dim: D of the frames.
            hidden: of the gated layer; 4864 is ``intermediate_size`` of Qwen2.5-0.5B.
            width: of the language model; 896 is its ``hidden_size``.
        """
        super().__init__()
        self.fc_1 = nn.Linear(dim, hidden)
        self.fc_2 = nn.Linear(dim, hidden)
        self.proj = nn.Linear(hidden, width)

    def forward(self, frames: Tensor) -> Tensor:
        """(…, D) → (…, width)."""
        return self.proj(F.silu(self.fc_1(frames)) * self.fc_2(frames))


class _Prompt(NamedTuple):
    """An `auricle.engine.request.PromptLike`."""

    input_ids: Sequence[int]
    clips: Sequence[Tensor]


class AsrHead(nn.Module):
    """A frozen causal language model that reads adapted frames."""

    def __init__(
        self,
        lm: "Decoder",
        tokenizer: "Tokenizer",
        dim: int,
        *,
        separator: str = SEPARATOR,
        end: str = END,
        seed: int = 42,
    ) -> None:
        """Freeze the language model and make a new adapter on its device, as wide as its configuration says.

        Args:
            lm: the language model. Its gradients are switched off and it is put in evaluation mode.
            tokenizer: its tokens.
            dim: D of the frames.
            separator: token between frames and text.
            end: token that ends a transcript.
            seed: of the adapter's weights.

        Raises:
            ConfigError: the tokenizer has no such separator or end.
        """
        super().__init__()
        ids = tokenizer.token_to_id(separator), tokenizer.token_to_id(end)
        if ids[0] is None or ids[1] is None:
            raise ConfigError(
                f"the tokenizer gives {separator!r} and {end!r} the numbers {ids}; name tokens that it has"
            )
        self.separator_id, self.end_id = ids[0], ids[1]
        self.decoder: Decoder = lm.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = AsrAdapter(dim, lm.config.intermediate_size, lm.config.hidden_size)
        self.adapter.to(lm.device)

    def train(self, mode: bool = True) -> "AsrHead":
        """Training mode of the adapter; the language model stays as it is."""
        self.training = mode
        self.adapter.train(mode)
        return self

    def embed(self, ids: Tensor, clips: Sequence[Tensor]) -> Tensor:
        """Token vectors (B, L, width) of ids (B, L), and the adapted frames of the clips where ids are -1, in order."""
        vectors = self.decoder.get_input_embeddings()(ids.clamp(min=0))
        frames = self.adapter(torch.cat([clip.to(vectors.device, torch.float32) for clip in clips]))
        places = (ids == _FRAME)[..., None].expand_as(vectors)
        return vectors.masked_scatter(places, frames.to(vectors.dtype))

    def outputs(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Next-token logits (N, V) float32 at all places that a text token or the end follows, and those tokens (N,).

        The utterances of a batch follow each other; padding behind them is not attended to.
        """
        ids, labels, lengths = self._sequences(utterances)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        vectors = self.embed(ids, [utterance.frames for utterance in utterances])
        hidden = self.decoder.decode(vectors, mask)
        wanted = labels[:, 1:]
        places = wanted != _IGNORED
        # Logits only where a loss is: a vocabulary of 150,000 at every frame would fill the memory.
        return self.decoder.lm_head(hidden[:, :-1][places]).float(), wanted[places]

    def loss(self, utterances: Sequence[Utterance]) -> Tensor:
        """Mean cross entropy of the text tokens and ends of a batch, ().

        Differs from: X-ARES, which counts the separator as text too.
        """
        logits, wanted = self.outputs(utterances)
        return F.cross_entropy(logits, wanted)

    def transcribe(
        self,
        frames: Sequence[Tensor],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        repetition_penalty: float = REPETITION_PENALTY,
    ) -> list[str]:
        """Greedy transcripts of clips (T_i, D), each as if alone; up to the end token or ``max_new_tokens``.

        Raises:
            PromptError: a clip and its transcript do not fit into the context of the language model.
        """
        prompts = [_Prompt([_FRAME] * len(each) + [self.separator_id], [each]) for each in frames]
        answers = generate(
            cast("MiDashengLM", self),  # the engine needs only its `decoder` and `embed`
            prompts,
            SamplingParams(max_new_tokens=max_new_tokens, repetition_penalty=repetition_penalty),
            eos_token_ids=[self.end_id],
        )
        return [self.tokenizer.decode(answer.ids, skip_special_tokens=True).strip() for answer in answers]

    @torch.inference_mode()
    def teacher_forced(self, utterances: Sequence[Utterance]) -> list[str]:
        """The likeliest token at each place of the true text, as text, without the place of the end."""
        logits, _ = self.outputs(utterances)
        counts = [len(self._tokens(utterance.text)) for utterance in utterances]
        parts = logits.argmax(-1).split(counts)
        return [self.tokenizer.decode(part.tolist()[:-1], skip_special_tokens=True).strip() for part in parts]

    def _tokens(self, text: str) -> list[int]:
        """Tokens of a text and the end."""
        return [*self.tokenizer.encode(text, add_special_tokens=False).ids, self.end_id]

    def _sequences(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor, Tensor]:
        """Token numbers with -1 for frames and labels, both (B, L) filled on the right, and lengths (B,)."""
        rows, labels = [], []
        for utterance in utterances:
            tokens = self._tokens(utterance.text)
            before = [_FRAME] * len(utterance.frames) + [self.separator_id]
            rows.append(torch.tensor(before + tokens))
            labels.append(torch.tensor([_IGNORED] * len(before) + tokens))
        pad = nn.utils.rnn.pad_sequence
        ids = pad(rows, batch_first=True, padding_value=self.end_id)
        wanted = pad(labels, batch_first=True, padding_value=_IGNORED)
        lengths = torch.tensor([len(row) for row in rows])
        device = self.decoder.device
        return ids.to(device), wanted.to(device), lengths.to(device)


def train_asr(
    head: AsrHead,
    train: Sequence[Utterance],
    valid: Sequence[Utterance],
    *,
    settings: AsrSettings | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, score: None,
) -> list[float]:
    """Train the adapter in place, leave it as after the first best epoch; returns the validation score of every epoch.

    Raises:
        DataError: an empty split, or an utterance without frames.

    Source: X-ARES `librispeech_asr_task.py`, `trainer.py`: Adam without decay. Differs from: it, in that the language
    model runs in its own precision instead of an autocast bound to one device.
    """
    settings = settings or AsrSettings()
    if not train or not valid or any(not len(utterance.frames) for utterance in (*train, *valid)):
        raise DataError(
            f"{len(train)} utterances to train on and {len(valid)} to validate on; expected some, with frames"
        )
    optimizer = torch.optim.Adam(head.adapter.parameters(), lr=settings.rate)
    best: dict[str, Tensor] = {}
    scores: list[float] = []
    for epoch, rate in enumerate(cosine_rates(settings.rate, settings.epochs)):
        optimizer.param_groups[0]["lr"] = rate
        order = Permutation(len(train), settings.seed, epoch).ids(np.arange(len(train))).tolist()
        head.train()
        for start in range(0, len(order), settings.batch_size):
            loss = head.loss([train[i] for i in order[start : start + settings.batch_size]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        score = _validate(head.eval(), valid, settings)
        if not scores or score > max(scores):
            best = {name: value.detach().clone() for name, value in head.adapter.state_dict().items()}
        scores.append(score)
        on_epoch(epoch, score)
    head.adapter.load_state_dict(best)
    return scores


@torch.inference_mode()
def _validate(head: AsrHead, valid: Sequence[Utterance], settings: AsrSettings) -> float:
    """Minus the mean loss of a token, or WER_inv; higher is better."""
    batches = [valid[start : start + settings.batch_size] for start in range(0, len(valid), settings.batch_size)]
    if settings.validation == "teacher_forced":
        found = [text for batch in batches for text in head.teacher_forced(batch)]
        return wer_inv([utterance.text for utterance in valid], found)
    total = tokens = 0.0
    for batch in batches:
        logits, wanted = head.outputs(batch)
        total += float(F.cross_entropy(logits, wanted, reduction="sum"))
        tokens += len(wanted)
    return -total / tokens
