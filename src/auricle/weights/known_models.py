"""The models known by name: what they are, under which licence, and who offers them.

Nothing is looked up here; `auricle.weights.catalog` turns names into files. An encoder of a new family is one entry
whose ``family`` names its file, see `auricle.models.encoders.pieces`.
"""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogEntry:
    """A model known by name."""

    name: str
    kind: Literal["encoder", "language model", "audio and text", "denoiser"]
    summary: str
    parameters: int | None
    license: str = "apache-2.0"
    caution: str = ""  # what its licence does not state
    repo: str | None = None  # Hugging Face Hub id; None = inside this package
    revision: str | None = None  # commit to use when the caller names none; None = the hub's newest
    sha256: str | None = None  # of the weights; None = not known here, the hub's own hash is relied on
    within: str | None = None  # embedded model whose part this one is, and whose folder holds it
    family: str = ""  # file of `auricle.models` that reads and runs it; "": Dasheng, transformers or a language model
    paper: str = ""  # arXiv number
    frame_hz: float | None = None  # frames a second, frequency patches averaged
    training_data: str = ""  # "": not known here
    scores: str = ""  # published; tables of X-ARES by their name in evaluate/declared/published_scores.json
    where: str = ""  # who offers the weights, where no hub repository holds them as safetensors
    unavailable: str = ""  # why it cannot be run here at all


def _encoder(name: str, summary: str, parameters: int, **more: Any) -> CatalogEntry:
    return CatalogEntry(name=name, kind="encoder", summary=summary, parameters=parameters, **more)


# Parameter counts: computed from the released shapes, of the encoder alone for encoders. No published hash is pinned:
# none could be confirmed.
ENTRIES = (
    CatalogEntry(
        name="auricle-tiny",
        kind="language model",
        summary="describes, transcribes and answers; made by recipes/tiny",
        parameters=7_889_280,
    ),
    _encoder("auricle-tiny-encoder", "the encoder of auricle-tiny: frames at 25 Hz", 4_869_760, within="auricle-tiny"),
    CatalogEntry(
        name="auricle-tiny-glap",
        kind="audio and text",
        summary="audio and English texts in one space: auricle-tiny-encoder with MiniLM (extra align)",
        parameters=27_681_664,
    ),
    CatalogEntry(
        name="auricle-tiny-denoiser",
        kind="denoiser",
        summary="removes noise and reverberation from speech; made by recipes/tiny",
        parameters=None,
    ),
    _encoder("dasheng-base", "Dasheng, 768 wide, 12 blocks", 85_447_808, repo="mispeech/dasheng-base"),
    _encoder("dasheng-0.6b", "Dasheng, 1280 wide, 32 blocks", 630_333_568, repo="mispeech/dasheng-0.6B"),
    _encoder("dasheng-1.2b", "Dasheng, 1536 wide, 40 blocks", 1_134_047_360, repo="mispeech/dasheng-1.2B"),
    CatalogEntry(
        name="midashenglm-7b",
        kind="language model",
        summary="Dasheng 0.6B with a Qwen2.5-7B decoder",
        parameters=8_281_739_904,
        repo="mispeech/midashenglm-7b",
    ),
    CatalogEntry(
        name="glap",
        kind="audio and text",
        summary="Dasheng base with SONAR's text encoder: audio and texts of 202 languages in one space",
        parameters=855_475_328,
        caution="its text tower comes from SONAR, whose weights are in part under CC-BY-NC-4.0: ask its owners before "
        "selling or passing on",
        repo="mispeech/GLAP",
    ),
    _encoder("whisper-base", "Whisper's encoder, 512 wide, 6 blocks, 50 Hz", 20_590_592, repo="openai/whisper-base"),
    _encoder("whisper-small", "Whisper's encoder, 768 wide, 12 blocks, 50 Hz", 88_154_112, repo="openai/whisper-small"),
    _encoder(
        "whisper-large-v3",
        "Whisper's encoder, 1280 wide, 32 blocks, 50 Hz",
        636_968_960,
        repo="openai/whisper-large-v3",
    ),
    _encoder("wav2vec2-base", "wav2vec 2.0, 768 wide, 12 blocks, 50 Hz", 94_370_944, repo="facebook/wav2vec2-base"),
    _encoder("hubert-base", "HuBERT, 768 wide, 12 blocks, 50 Hz", 94_370_944, repo="facebook/hubert-base-ls960"),
    _encoder(
        "wavlm-base-plus",
        "WavLM, 768 wide, 12 blocks, 50 Hz",
        94_381_168,
        license="cc-by-sa-3.0",
        repo="microsoft/wavlm-base-plus",
    ),
    _encoder(
        "data2vec-audio-base",
        "data2vec-audio, 768 wide, 12 blocks, 50 Hz",
        93_163_520,
        repo="facebook/data2vec-audio-base",
    ),
    _encoder(
        "ast-audioset",
        "Audio Spectrogram Transformer, 768 wide, 12 blocks, 10 Hz",
        86_187_264,
        license="bsd-3-clause",
        repo="MIT/ast-finetuned-audioset-10-10-0.4593",
    ),
    _encoder(
        "beats-iter3",
        "BEATs iter3, 768 wide, 12 blocks, 6.25 Hz",
        90_311_664,
        license="mit",
        family="beats",
        paper="2212.09058",
        frame_hz=6.25,
        training_data="AudioSet-2M",
        scores="X-ARES: wavlab_table1, openbeats_table; fine-tuned ESC-50 95.6, AS-20K mAP 38.3 (2506.18843); "
        "GLAP's table of encoders 55.1 64.3 23.9 91.8 44.0",
        where="microsoft/unilm on GitHub, folder beats (BEATs_iter3.pt and related files, fine-tuned ones too)",
    ),
    *(
        _encoder(
            f"openbeats-{size}",
            f"OpenBEATs, {geometry}, 6.25 Hz",
            parameters,
            license="cc-by-4.0",
            family="beats",
            paper="2507.14129",
            frame_hz=6.25,
            training_data="AudioSet, FreeSound, FMA, iNaturalist and more, 20 k h",
            scores=scores,
            where=f"shikhar7ssu/OpenBEATs-{size.title()}-i3 on the Hugging Face Hub, which holds a .pt file alone",
        )
        for size, geometry, parameters, scores in (
            ("base", "768 wide, 12 blocks", 90_311_664, ""),
            ("large", "1024 wide, 24 blocks", 311_376_448, "X-ARES: openbeats_table; related in wavlab_table1 (300M)"),
        )
    ),
    *(
        _encoder(
            f"eat-{size}{suffix}",
            f"EAT, {geometry}, 6.25 Hz{tuned}",
            parameters,
            license="mit",
            family="eat",
            paper="2401.03497",
            frame_hz=6.25,
            training_data="AudioSet-2M",
            scores=scores,
            repo=f"worstchan/EAT-{size}_epoch{epochs}_{stage}",
        )
        for size, epochs, geometry, parameters, scores in (
            ("base", 30, "768 wide, 12 blocks", 85_254_144, "AS-20K mAP 41.3, AS-2M 48.9; X-ARES: openbeats_table"),
            ("large", 20, "1024 wide, 24 blocks", 302_575_616, "AS-20K mAP 42.0, AS-2M 49.5; X-ARES: openbeats_table"),
        )
        for suffix, stage, tuned in (("", "pretrain", ""), ("-as2m", "finetune_AS2M", ", fine-tuned on AudioSet"))
    ),
    _encoder(
        "audiomae",
        "AudioMAE, 768 wide, 12 blocks, 6.25 Hz",
        85_648_128,
        license="cc-by-nc-4.0",
        caution="its weights are CC-BY-NC-4.0: not for commercial use",
        family="audiomae",
        paper="2207.06405",
        frame_hz=6.25,
        training_data="AudioSet-2M",
        scores="AS-2M mAP 47.3; HEAR environment, speech, music 61.7 38.7 72.7 (Dasheng's README)",
        where="facebookresearch/AudioMAE on GitHub (pre-trained and fine-tuned)",
    ),
    *(
        _encoder(
            f"ced-{size}",
            f"CED, {width} wide, 12 blocks, 6.25 Hz, trained to tag",
            parameters,
            family="ced",
            paper="2308.11957",
            frame_hz=6.25,
            training_data="AudioSet-2M",
            scores="GLAP's table of encoders 58.6 62.0 25.1 87.8 70.6" if size == "base" else "",
            repo=f"mispeech/ced-{size}",
        )
        for size, width, parameters in (
            ("tiny", 192, 5_401_088),
            ("mini", 256, 9_560_704),
            ("small", 384, 21_418_880),
            ("base", 768, 85_304_960),
        )
    ),
    *(
        _encoder(
            f"atst-frame-{size}",
            f"ATST-Frame, {width} wide, 12 blocks, 25 Hz",
            parameters,
            license="cc-by-4.0",
            family="atst",
            paper="2306.04186",
            frame_hz=25.0,
            training_data="AudioSet-2M",
            scores="ESC-50 fine-tuned 91.1, AS-20K mAP 39.0, HEAR 78.1 (2506.18843)" if size == "base" else "",
            where="Audio-WestlakeU/audiossl on GitHub (atstframe_*.ckpt)",
        )
        for size, width, parameters in (("small", 384, 21_475_968), ("base", 768, 85_419_264))
    ),
    *(
        _encoder(
            f"data2vec2-{size}",
            f"data2vec 2.0 audio, {geometry}, 50 Hz",
            parameters,
            license="mit",
            family="data2vec2",
            paper="2212.07525",
            frame_hz=50.0,
            training_data=data,
            where=f"facebookresearch/fairseq on GitHub, examples/data2vec ({file})",
        )
        for size, geometry, parameters, data, file in (
            ("base", "768 wide, 12 blocks", 93_163_532, "LibriSpeech 960 h", "base_libri.pt"),
            ("large", "1024 wide, 24 blocks", 313_275_408, "Libri-Light 60 k h", "large_vox.pt"),
        )
    ),
    _encoder(
        "msm-mae",
        "MSM-MAE, 768 wide, 12 blocks, 6.25 Hz, 3840 numbers a frame",
        85_304_832,
        license="ntt-evaluation",
        caution="its weights are under NTT's evaluation licence: not for commercial use, not to be passed on",
        family="msm_mae",
        paper="2204.12260",
        frame_hz=6.25,
        training_data="AudioSet-2M",
        where="nttcslab/msm-mae on GitHub (its authors recommend M2D instead)",
    ),
    _encoder(
        "best-rq",
        "BEST-RQ of SpeechBrain's recipe, 576 wide, 12 conformer blocks, 25 Hz",
        89_302_240,
        family="best_rq",
        paper="2202.01855",
        frame_hz=25.0,
        training_data="LibriSpeech 960 h, or Libri-Light",
        where="those who trained SpeechBrain's recipe (the paper's own were never released)",
    ),
    _encoder(
        "usad",
        "USAD, distilled from WavLM and ATST-Frame, 50 Hz: not available",
        94_000_000,
        license="not known here",
        caution="USAD 2.0 is CC-BY-NC-SA-4.0: not for commercial use",
        paper="2506.18843",
        frame_hz=50.0,
        training_data="126 k h of speech, sound and music",
        scores="HEAR: small 77.2, base 78.7, large 79.7",
        unavailable="its network is only published as code to be run from the hub, so there was nothing to check an "
        "implementation against; dasheng-base and atst-frame-base are near it",
    ),
)
