"""Names, folders and hub ids → audio language models with the settings that their files state."""

from collections.abc import Mapping
from pathlib import Path

from auricle.errors import ConfigError
from auricle.listen.capabilities import Capabilities
from auricle.listen.confidence import Calibration
from auricle.listen.model import MAX_AUDIO_S, AudioLM, own_capabilities
from auricle.listen.no_speech import NoSpeechRule
from auricle.listen.other_models.endpoint_settings import PREFIX as ENDPOINT_PREFIX
from auricle.listen.other_models.endpoint_settings import EndpointSettings
from auricle.listen.other_models.whisper_files import PREFIX
from auricle.metrics.calibration import LogisticMap
from auricle.weights.cards import read_card
from auricle.weights.catalog import resolve
from auricle.weights.generation_config import (
    MAX_AUDIO_KEY,
    MAX_PROMPT_KEY,
    NO_SPEECH_KEY,
    OFFSET_KEYS,
    OPEN_SPEECH_KEY,
    SLOPE_KEYS,
    UNSURE_KEY,
    stated_settings,
)

# Of MiDashengLM's published evaluation (arXiv 2508.03983); the language is plain text, no token of its own.
LANGUAGE_PROMPT = "Transcribe the speech into text <|{language}|>"


def load(
    name: str = "auricle-tiny",
    *,
    device: str = "auto",
    dtype: str | None = None,
    revision: str | None = None,
    adapter: str | None = None,
    quantize: str | None = None,
    endpoint: EndpointSettings | None = None,
) -> AudioLM:
    """Load an audio language model.

    Args:
        name: embedded name, hub id, or folder in a published layout, of MiDashengLM or of one of the audio language
            models of `transformers` that ``auricle models --capabilities`` lists (extra ``transformers``); or
            ``whisper:`` and a size, a folder in CTranslate2's layout or a hub id, for a model that transcribes alone
            (extra ``asr``); or ``openai:MODEL@URL``, for a model behind an OpenAI-compatible server.
        device: ``auto``: a GPU where there is one, else the CPU; or ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: ``float32``, ``bfloat16`` or ``float16``; None or ``auto``: the checkpoint's own, bfloat16 where it is
            stored so, else float32.
        revision: of a hub id: branch, tag or commit.
        adapter: folder or hub id of a PEFT adapter to merge.
        quantize: ``int8``, ``int8-dynamic``, ``int4`` or ``fp8``, see `auricle.weights.quantize`; None: as stored.
        endpoint: how a server may be asked, and what that may cost; None: defaults.

    Raises:
        WeightsError: unknown, unsafe or unfitting weights.
        ConfigError: a setting that the model cannot have.
        EndpointError: a server does not answer.
        MissingExtra: Whisper without faster-whisper.
    """
    from auricle.listen.other_models.stock import stock_class
    from auricle.weights import load_midashenglm

    if str(name).startswith(ENDPOINT_PREFIX):
        from auricle.listen.other_models.openai_model import EndpointLM

        _refuse_settings(name, dtype=dtype, revision=revision, adapter=adapter, quantize=quantize)
        return EndpointLM(name, endpoint)
    if endpoint is not None:
        raise ConfigError(f"{name} is no model behind a server, which settings are for; expected openai:MODEL@URL")

    if str(name).startswith(PREFIX):
        from auricle.listen.other_models.whisper import load_whisper

        return load_whisper(name, device=device, dtype=dtype, revision=revision, adapter=adapter, quantize=quantize)
    source = resolve(name, revision=revision)
    if (kind := stock_class(source)) is not None:
        from auricle.listen.other_models.stock import load_stock

        if adapter is not None or quantize is not None:
            raise ConfigError(f"{name} runs in transformers as it is stored; leave out adapter and quantize")
        return load_stock(name, source, kind, device=device, dtype=dtype)
    loaded = load_midashenglm(name, device=device, dtype=dtype, revision=revision, adapter=adapter, quantize=quantize)
    folder = Path(str(loaded.identity["path"]))
    stated = stated_settings(folder)
    model = AudioLM(
        loaded,
        max_audio_s=stated.get(MAX_AUDIO_KEY, MAX_AUDIO_S),
        max_prompt_s=stated.get(MAX_PROMPT_KEY),
        no_speech=NoSpeechRule(stated.get(NO_SPEECH_KEY)),
        unsure_below=stated.get(UNSURE_KEY),
        # What was trained here states its longest clip, and was trained on the one prompt without a language.
        language_prompt=None if MAX_AUDIO_KEY in stated else LANGUAGE_PROMPT,
        verb_limits=read_card(folder).verb_limits if (folder / "README.md").is_file() else None,
    )
    model.open_speech_below = stated.get(OPEN_SPEECH_KEY, model.open_speech_below)
    model.calibration = _calibration(stated, folder)
    return model


def _calibration(stated: Mapping[str, float], folder: Path) -> Calibration:
    """How the model's files say that its confidences are made.

    Raises:
        ConfigError: a number out of its range.
    """
    try:
        return Calibration(
            **{
                kind: LogisticMap(stated.get(SLOPE_KEYS[kind], 1.0), stated.get(OFFSET_KEYS[kind], 0.0))
                for kind in SLOPE_KEYS
            }
        )
    except ConfigError as error:
        raise ConfigError(f"{folder / 'generation_config.json'}: {error}") from None


def _refuse_settings(name: str, **settings: str | None) -> None:
    """Refuse what only weights on this machine can have."""
    given = [each for each, value in settings.items() if value not in (None, "auto")]
    if given:
        raise ConfigError(f"{name} runs on its server; leave out {', '.join(given)}")


def known_capabilities() -> dict[str, Capabilities]:
    """What the models that `load` takes can be asked for, by name or kind of name; nothing is downloaded.

    Those of embedded models are read from their files. Of others the longest clip is that of the published files; a
    loaded model states its own in ``capabilities``.
    """
    from auricle.listen.other_models.openai_model import endpoint_capabilities
    from auricle.listen.other_models.stock_classes import STOCK_CLASSES
    from auricle.listen.other_models.whisper import CAPABILITIES
    from auricle.weights.catalog import entries, is_ready

    found = {}
    for entry in entries():
        if entry.kind == "language model" and not entry.unavailable:
            is_here = entry.repo is None and is_ready(entry)
            stated = stated_settings(resolve(entry.name).path) if is_here else {}
            found[entry.name] = own_capabilities(stated.get(MAX_AUDIO_KEY, MAX_AUDIO_S))
    found[f"{PREFIX}SIZE"] = CAPABILITIES
    found[f"{ENDPOINT_PREFIX}MODEL@URL"] = endpoint_capabilities()
    for kind in dict.fromkeys(STOCK_CLASSES.values()):
        untested = "" if kind.is_tested else " (untested)"
        found[f"transformers: {kind.title}{untested}"] = kind.capabilities(kind.limit_s)
    return found
