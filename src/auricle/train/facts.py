"""Auxiliary losses of the encoder on the letters (CTC) and the facts (tags) of a scene.

The captions alone would train both, but only through the decoder, which first has to learn to use its input; with a
direct gradient small data and short runs suffice. The heads are not exported.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.data.parts import DIGITS, KINDS, Scene
from auricle.data.wording import NO_SPEECH, spoken_words

LETTERS = "abcdefghijklmnopqrstuvwxyz' "  # CTC symbol 0 is the blank
VOICE = ("female", "child")


def letters(scene: Scene) -> Tensor:
    """CTC targets (n,) int64 of the speech; empty where there is none, or the words are not known."""
    text = spoken_words(scene)
    if text is None or text == NO_SPEECH:
        return torch.empty(0, dtype=torch.long)
    return torch.tensor([LETTERS.index(c) + 1 for c in text.lower() if c in LETTERS], dtype=torch.long)


Labels = Sequence[tuple[str, str]]  # (fact, value), see `auricle.data.scenes.Pools.labels`


def tag_names(labels: Labels) -> list[str]:
    """What the tag head predicts: kinds, labels, spoken digits, and the speaker's gender and age group."""
    return [*KINDS, *(value for _, value in labels), *sorted(DIGITS), *VOICE]


def tag_weights(labels: Labels) -> list[float]:
    """Weight of each of `tag_names`: kinds and voices are few against dozens of labels and digits, mostly absent."""
    return [2.0] * len(KINDS) + [1.0] * (len(labels) + len(DIGITS)) + [4.0] * len(VOICE)


def tags(scene: Scene, labels: Labels) -> Tensor:
    """(len(tag_names),) float32: 1 present, 0 not, NaN unknown."""
    speakers = scene.of_kind("speech")
    genders = {part.gender for part in speakers}
    children = {part.is_child for part in speakers}
    found = [float(bool(scene.of_kind(kind))) for kind in KINDS]
    found += [_tag(scene, *label) for label in labels]
    text = spoken_words(scene)
    spoken = set() if text is None else set(text.split())
    found += [float("nan") if text is None else float(digit in spoken) for digit in sorted(DIGITS)]
    found.append(float(genders == {"f"}) if genders in ({"m"}, {"f"}) else float("nan"))
    found.append(float(children == {True}) if children in ({True}, {False}) else float("nan"))
    return torch.tensor(found)


def _tag(scene: Scene, fact: str, value: str) -> float:
    """Whether a part has the value; unknown where a part of that kind does not state the fact."""
    if fact == "event":
        return float(any(part.event == value for part in scene.parts))
    if fact == "instrument":
        named = [part.instruments for part in scene.of_kind("music")]
    else:
        named = [(known,) if (known := getattr(part, fact)) else () for part in scene.of_kind("speech")]
    if any(value in names for names in named):
        return 1.0
    if fact == "command":  # those of speech in the background are not kept
        return 0.0 if all(part.foreground for part in scene.of_kind("speech")) else float("nan")
    return float("nan") if () in named else 0.0


class FactHeads(nn.Module):
    """Linear heads on encoder frames (25 Hz): CTC on every frame, tags on the mean frame."""

    weights: Tensor

    def __init__(self, width: int, weights: Sequence[float]) -> None:
        """``width``: of the encoder; ``weights``: of each tag in the loss, see `tag_weights`."""
        super().__init__()
        self.ctc = nn.Linear(width, len(LETTERS) + 1)
        self.tags = nn.Linear(width, len(weights))
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def forward(self, frames: Sequence[Tensor], targets: Sequence[Tensor], known: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (P_i, D) of each clip, letters (n_i,) and tags (B, K) → CTC loss () and tag loss ()."""
        return self._ctc_loss(frames, targets), self._tag_loss(frames, known)

    def _ctc_loss(self, frames: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        spoken = [i for i, target in enumerate(targets) if len(target)]
        if not spoken:
            return (self.ctc.weight.sum() + self.ctc.bias.sum()) * 0.0  # so that processes agree on what has gradients
        logits = nn.utils.rnn.pad_sequence([self.ctc(frames[i]).float() for i in spoken])
        lengths = torch.tensor([len(frames[i]) for i in spoken])
        counts = torch.tensor([len(targets[i]) for i in spoken])
        wanted = torch.cat([targets[i] for i in spoken])
        # Mean over letters of the batch, so that a long sentence weighs more than a digit.
        loss = F.ctc_loss(logits.log_softmax(-1), wanted, lengths, counts, reduction="sum", zero_infinity=True)
        return loss / counts.sum()

    def _tag_loss(self, frames: Sequence[Tensor], known: Tensor) -> Tensor:
        logits = self.tags(torch.stack([clip.mean(0) for clip in frames])).float()
        sure = ~known.isnan()
        losses = F.binary_cross_entropy_with_logits(logits[sure], known[sure], reduction="none")
        weights = self.weights.expand_as(known)[sure]
        return (losses * weights).sum() / weights.sum()
