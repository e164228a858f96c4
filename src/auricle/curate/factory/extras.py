"""Experts of optional packages: voice activity, Whisper's transcripts, audio classifiers of transformers."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from auricle.audio.resample import SAMPLE_RATE
from auricle.curate.factory.experts import Expert, ExpertInput, ExpertSettings, Fact
from auricle.errors import AuricleError, ConfigError, MissingExtra

_CODE = "1"  # version of this module
_STEP_S = 0.5  # voice activity is looked for in steps of this length
_BATCH = 8
_LABELS = 3  # of a classifier, the likeliest ones
_LEAST = 0.1  # probability of a label that is a fact


def voice_activity(settings: ExpertSettings) -> Expert:
    """Where silero-vad finds speech: ``speech_activity``, one fact for each stretch, and its share (extra ``vad``)."""
    from auricle.listen.vad import SpeechDetector

    detector, step = SpeechDetector(), int(_STEP_S * SAMPLE_RATE)

    def run(clips: Sequence[ExpertInput]) -> list[list[Fact]]:
        return [_stretches(clip, [detector.has_speech(part) for part in _cut(clip, step)], step) for clip in clips]

    gives = ("speech_activity", "speech_share")
    name = f"{_CODE}-{version('silero-vad')}"
    return Expert(name="silero-vad", version=name, phase="speech", gives=gives, run=run, letters="S", cost=0.02)


def whisper(settings: ExpertSettings) -> Expert:
    """Whisper's ``transcript`` and ``language``; ``whisper:base``, a folder or a hub id (extra ``asr``)."""
    from auricle.listen.loading import load

    model = load(f"whisper:{settings.argument or 'base'}", device=settings.device)

    def run(clips: Sequence[ExpertInput]) -> list[list[Fact] | AuricleError]:
        found: list[list[Fact] | AuricleError] = []
        for clip, spoken in zip(clips, model.transcribe_many([clip.waveform for clip in clips]), strict=True):
            if isinstance(spoken, AuricleError):
                found.append(spoken)
                continue
            stop, facts = round(clip.seconds, 3), list[Fact]()
            if spoken.text:
                sure = spoken.confidence
                facts.append(Fact(name="transcript", value=spoken.text, confidence=sure, stop_s=stop))
            if spoken.text and spoken.language:
                sure = spoken.language_probability
                facts.append(Fact(name="language", value=_language(spoken.language), confidence=sure, stop_s=stop))
            found.append(facts)
        return found

    name = f"{_CODE}-{model.fingerprint[:12]}"
    gives = ("transcript", "language")
    return Expert(name="whisper", version=name, phase="speech", gives=gives, run=run, letters="S", cost=0.3)


def audio_classifier(settings: ExpertSettings) -> Expert:
    """Labels of an audio classifier in transformers' own layout: ``label``; ``transformers:FOLDER`` or a hub id.

    Weights are read as safetensors, and code in the folder is never run. Labels are acoustic facts of their own; they
    do not decide the domain.
    """
    try:
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
    except ImportError:
        raise MissingExtra("an audio classifier", "transformers") from None
    import torch

    if not settings.argument:
        raise ConfigError("transformers needs the classifier's folder or hub id behind it: transformers:FOLDER")
    name = settings.argument
    try:
        extractor = AutoFeatureExtractor.from_pretrained(name)
        network: Any = AutoModelForAudioClassification.from_pretrained(name, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{name}: no audio classifier that transformers can load ({error}); check the name") from None
    weights = sum(float(each.detach().double().abs().sum()) for each in network.parameters())

    def run(clips: Sequence[ExpertInput]) -> list[list[Fact]]:
        return [_labels(clip, extractor, network, torch) for clip in clips]

    identity = f"{_CODE}-{name.rstrip('/').rpartition('/')[2]}-{weights:.6e}"
    return Expert(name="transformers", version=identity, phase="acoustics", gives=("label",), run=run, cost=0.1)


def _labels(clip: ExpertInput, extractor: Any, network: Any, torch: Any) -> list[Fact]:
    inputs = extractor(clip.waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
    with torch.inference_mode():
        shares = network(**inputs).logits[0].softmax(-1)
    found = shares.topk(min(_LABELS, len(shares)))
    return [
        Fact(
            name="label",
            value=str(network.config.id2label[int(place)])[:100],
            confidence=round(float(share), 3),
            stop_s=round(clip.seconds, 3),
        )
        for share, place in zip(found.values, found.indices, strict=True)
        if float(share) >= _LEAST
    ]


def _cut(clip: ExpertInput, step: int) -> list[Any]:
    return [clip.waveform[start : start + step] for start in range(0, len(clip.waveform), step)]


def _stretches(clip: ExpertInput, is_speech: Sequence[bool], step: int) -> list[Fact]:
    """Neighbouring steps with speech joined, then the share of all."""
    edges = np.flatnonzero(np.diff(np.asarray([False, *is_speech, False]).astype(int)))
    found = [
        Fact(
            name="speech_activity",
            value=True,
            start_s=round(start * step / SAMPLE_RATE, 3),
            stop_s=round(min(stop * step / SAMPLE_RATE, clip.seconds), 3),
        )
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    ]
    share = float(np.mean(is_speech)) if is_speech else 0.0
    return [*found, Fact(name="speech_share", value=round(share, 3), stop_s=round(clip.seconds, 3))]


def _language(code: str) -> str:
    from auricle.data.vocabulary import LANGUAGES

    return LANGUAGES.get(code, code)
