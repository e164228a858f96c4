"""The official client of the OpenAI API against a server: every format, stream and error, by the client's own types."""

import json
import struct
from typing import Any

import numpy as np
import pytest

from auricle.encode.aligner import Aligner
from auricle.listen import AudioLM

from ..listen.test_whisper import numbered
from .conftest import ALIGNER
from .running import Running, audio_part, error_of, events_of, noise, running, user, wav

openai = pytest.importorskip("openai", reason="the official client is not installed")
from openai.types import CreateEmbeddingResponse, Model  # noqa: E402
from openai.types.audio import Transcription, TranscriptionVerbose  # noqa: E402
from openai.types.chat import ChatCompletion, ChatCompletionChunk  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
CLIP, OTHER = wav(noise(2.0)), wav(noise(3.0, seed=1))
QUESTION = user("What do you hear?", audio_part(CLIP))
SPOKEN = wav(numbered(12, first=20), subtype="FLOAT")


@pytest.fixture(scope="module")
def client(server: Running) -> Any:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def checked(found: Any) -> Any:
    """A typed answer of the client, whose fields are all of the types that it declares."""
    again = type(found).model_validate(found.model_dump(exclude_unset=True), strict=True)
    assert again == found
    return found


def test_models_are_listed_and_found(client: Any) -> None:
    found = {each.id: checked(each) for each in client.models.list().data}
    assert list(found) == ["auricle-tiny", "talker", "whisper:toy", ALIGNER]
    assert all(type(each) is Model and each.object == "model" and each.created > 0 for each in found.values())
    assert found["auricle-tiny"].licence == "apache-2.0" and len(found["auricle-tiny"].sha256) == 64
    assert found["auricle-tiny"].capabilities == ["chat", "describe", "ask", "transcriptions"]
    assert found["whisper:toy"].capabilities == ["transcriptions"] and found[ALIGNER].max_seconds == 600
    assert client.models.retrieve("auricle-tiny") == found["auricle-tiny"]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-audio")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_chat_is_what_the_library_answers(client: Any, tiny: AudioLM) -> None:
    found = checked(client.chat.completions.create(model="auricle-tiny", messages=QUESTION))
    (choice,) = found.choices
    own = [{"type": "text", "text": "What do you hear?"}, {"type": "audio", "audio": _decoded(CLIP)}]
    assert type(found) is ChatCompletion and choice.message.content == tiny.chat([{"role": "user", "content": own}])
    assert (choice.index, choice.finish_reason, choice.message.role, choice.logprobs) == (0, "stop", "assistant", None)
    usage = found.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.audio_tokens == 10 and usage.completion_tokens > 1
    (receipt,) = found.auricle["receipts"]
    assert receipt["complete"] and receipt["duration_s"] == 2 and receipt["file"] == "messages[0].content[1]"


def test_a_chat_has_turns_and_several_clips(client: Any) -> None:
    system = {"role": "system", "content": "Answer briefly."}
    before = [*QUESTION, {"role": "assistant", "content": "Noise."}]
    turns = [system, *before, *user(audio_part(CLIP), audio_part(OTHER), "Are they the same?")]
    found = client.chat.completions.create(model="talker", messages=turns, max_completion_tokens=4)
    assert [each["duration_s"] for each in found.auricle["receipts"]] == [2, 2, 3]
    assert found.usage.prompt_tokens_details.audio_tokens == 35
    # The order of text and audio is the client's.
    swapped = client.chat.completions.create(model="talker", messages=user(audio_part(CLIP), "What do you hear?"))
    assert swapped.choices[0].message.content != _first(client, "talker", QUESTION)


def test_a_stream_is_the_same_answer_in_pieces(client: Any, server: Running) -> None:
    whole = client.chat.completions.create(model="talker", messages=QUESTION, max_tokens=12)
    asked: dict[str, Any] = {"model": "talker", "messages": QUESTION, "max_tokens": 12, "stream": True}
    chunks = [checked(each) for each in client.chat.completions.create(**asked)]
    assert all(type(each) is ChatCompletionChunk and len(each.choices) == 1 for each in chunks)
    assert len({each.id for each in chunks}) == 1 and chunks[0].choices[0].delta.role == "assistant"
    text = "".join(each.choices[0].delta.content or "" for each in chunks)
    assert text == whole.choices[0].message.content and len(chunks) > 5
    assert [each.choices[0].finish_reason for each in chunks[-2:]] == [None, whole.choices[0].finish_reason]
    assert chunks[-1].auricle == whole.auricle
    *_, last = client.chat.completions.create(**asked, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage.model_dump() == whole.usage.model_dump()
    raw = server.http.post("/v1/chat/completions", json=asked)
    assert raw.headers["content-type"].startswith("text/event-stream") and events_of(raw.text)[-1] == "[DONE]"


def test_sampling_is_honoured(client: Any) -> None:
    asked: dict[str, Any] = {"model": "talker", "messages": QUESTION, "max_tokens": 10}
    sampled = client.chat.completions.create(**asked, n=3, seed=5, temperature=1.5)
    texts = [each.message.content for each in sampled.choices]
    assert [each.index for each in sampled.choices] == [0, 1, 2] and len(set(texts)) == 3
    again = client.chat.completions.create(**asked, n=3, seed=5, temperature=1.5)
    assert again.choices == sampled.choices and again.id != sampled.id
    streamed: dict[int, str] = {}
    for chunk in client.chat.completions.create(**asked, n=3, seed=5, temperature=1.5, stream=True):
        for each in chunk.choices:
            streamed[each.index] = streamed.get(each.index, "") + (each.delta.content or "")
    assert list(streamed.values()) == texts
    free = _first(client, **asked, temperature=1.5)
    assert any(free != _first(client, **asked, temperature=1.5) for _ in range(5))
    greedy = client.chat.completions.create(**asked).choices[0]
    assert greedy.finish_reason == "length"
    stop = greedy.message.content[4:7]
    cut = client.chat.completions.create(**asked, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop" and cut.message.content == greedy.message.content.partition(stop)[0].strip()


def test_log_probabilities_of_tokens(client: Any) -> None:
    asked: dict[str, Any] = {"model": "talker", "messages": QUESTION, "max_tokens": 6, "logprobs": True}
    choice = checked(client.chat.completions.create(**asked, top_logprobs=3)).choices[0]
    tokens = choice.logprobs.content
    assert "".join(each.token for each in tokens).strip() == choice.message.content and len(tokens) == 6
    for each in tokens:
        assert len(each.top_logprobs) == 3 and each.top_logprobs[0].logprob == each.logprob <= 0
        assert [top.logprob for top in each.top_logprobs] == sorted(
            (t.logprob for t in each.top_logprobs), reverse=True
        )
        assert bytes(each.bytes).decode() == each.token
    chunks = list(client.chat.completions.create(**asked, top_logprobs=3, stream=True))
    found = [each for chunk in chunks if chunk.choices[0].logprobs for each in chunk.choices[0].logprobs.content]
    assert found == tokens
    assert client.chat.completions.create(**asked).choices[0].logprobs.content[0].top_logprobs == []


def test_answers_can_be_json(client: Any) -> None:
    pytest.importorskip("llguidance", reason="needs the extra schema")
    schema = {"type": "object", "properties": {"loud": {"type": "boolean"}}, "required": ["loud"]}
    schema |= {"additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "loudness", "schema": schema, "strict": True}}
    found = _first(client, "auricle-tiny", QUESTION, response_format=wanted, max_tokens=40)
    assert type(json.loads(found)["loud"]) is bool
    free = client.chat.completions.create(
        model="talker", messages=QUESTION, max_tokens=20, response_format={"type": "json_object"}
    )
    assert free.choices[0].message.content.startswith("{")
    assert (
        _refusal(client, response_format={"type": "json_schema", "json_schema": {"name": "x"}}).param
        == "response_format"
    )


def test_a_long_clip_is_asked_about_window_by_window(client: Any, tiny: AudioLM) -> None:
    long = wav(noise(25.0, seed=3))
    asked: dict[str, Any] = {"model": "auricle-tiny", "messages": user(audio_part(long), "Describe the clip.")}
    found = client.chat.completions.create(**asked)
    assert found.choices[0].message.content == tiny.ask(_decoded(long), "Describe the clip.").text
    (receipt,) = found.auricle["receipts"]
    assert receipt["complete"] and len(receipt["read"]) >= 3
    pieces = client.chat.completions.create(**asked, stream=True)
    assert "".join(each.choices[0].delta.content or "" for each in pieces) == found.choices[0].message.content
    refused = _refusal(client, model="auricle-tiny", messages=user(audio_part(long), audio_part(CLIP), "Same?"))
    assert (refused.code, refused.param) == ("clip_too_long", "messages")


@pytest.mark.parametrize(
    ("param", "given"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("n", 5),
        ("max_tokens", 4096),
        ("temperature", 3),
        ("top_p", 0),
        ("frequency_penalty", 0.5),
        ("logit_bias", {"50256": -100}),
        ("top_logprobs", 2),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("response_format", {"type": "grammar"}),
        ("stream_options", {"include_usage": True}),
        ("messages", []),
        ("messages[0].role", [{"role": "tool", "content": "x", "tool_call_id": "1"}]),
        ("messages[0].content[0]", user({"type": "image_url", "image_url": {"url": "data:,"}})),
        ("messages[0].content[0].input_audio.data", user({"type": "input_audio", "input_audio": {"data": "=%"}})),
        ("messages[0].content[0].audio_url.url", user({"type": "audio_url", "audio_url": {"url": "https://a/b.wav"}})),
        ("messages", user("x" * 9000)),
        ("reasoning_effort", "high"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client: Any, param: str, given: Any) -> None:
    name = "messages" if param.startswith("messages") else param
    assert _refusal(client, **{name: given}).param == param


def test_unknown_fields_are_refused(client: Any) -> None:
    assert _refusal(client, extra_body={"beam_width": 4}).param == "beam_width"
    assert _refusal(client, status=404, model="gpt-audio").code == "model_not_found"
    assert _refusal(client, model=ALIGNER).code == "model_cannot"
    assert client.chat.completions.create(model="talker", messages=QUESTION, user="me", max_tokens=1).choices


def test_transcripts_in_each_format(client: Any, server: Running) -> None:
    asked: dict[str, Any] = {"model": "whisper:toy", "file": ("a.wav", SPOKEN)}
    plain = checked(client.audio.transcriptions.create(**asked))
    text = " ".join(str(number) for number in range(20, 32))
    assert type(plain) is Transcription and plain.text == text
    assert plain.usage.type == "duration" and plain.usage.seconds == 12
    assert plain.auricle["receipt"]["complete"] and plain.auricle["receipt"]["file"] == "a.wav"
    assert client.audio.transcriptions.create(**asked, response_format="text") == f"{text}\n"
    srt = client.audio.transcriptions.create(**asked, response_format="srt")
    assert srt.startswith("1\n00:00:00,000 --> 00:00:04,900\n20 21 22 23 24\n\n2\n") and srt.endswith("\n\n")
    vtt = client.audio.transcriptions.create(**asked, response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:04.900\n20 21") and vtt.endswith("\n\n")
    raw = server.post("/v1/audio/transcriptions", SPOKEN, model="whisper:toy", response_format="vtt")
    assert raw.headers["content-type"].startswith("text/vtt")
    assert json.loads(raw.headers["x-auricle-receipt"])["duration_s"] == 12


def test_verbose_transcripts_have_segments_and_words(client: Any) -> None:
    asked: dict[str, Any] = {"model": "whisper:toy", "file": ("a.wav", SPOKEN), "response_format": "verbose_json"}
    found = checked(client.audio.transcriptions.create(**asked))
    assert type(found) is TranscriptionVerbose and found.words is None
    assert (found.language, found.duration, found.task) == ("en", 12.0, "transcribe")
    assert [each.id for each in found.segments] == [0, 1, 2] and found.segments[1].seek == 500
    assert " ".join(each.text for each in found.segments) == found.text
    assert all(each.start < each.end and each.avg_logprob < 0 < each.compression_ratio for each in found.segments)
    timed = client.audio.transcriptions.create(**asked, timestamp_granularities=["word", "segment"])
    assert [each.word for each in timed.words] == found.text.split() and timed.words[3].start == 3
    spoken = client.audio.transcriptions.create(**{**asked, "model": "talker"})
    assert spoken.text and spoken.words is None


def test_a_transcript_of_a_language_model(client: Any, model: AudioLM) -> None:
    asked: dict[str, Any] = {"model": "talker", "file": ("a.flac", wav(noise(2.0), form="FLAC"))}
    found = client.audio.transcriptions.create(**asked)
    assert found.text == model.transcribe(_decoded(asked["file"][1])).text != ""
    assert found.usage.type == "tokens" and found.usage.input_token_details.audio_tokens >= 10
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens
    assert client.audio.transcriptions.create(**asked, language="en").text
    with pytest.raises(openai.BadRequestError, match="names no language"):
        client.audio.transcriptions.create(**{**asked, "model": "auricle-tiny"}, language="en")


def test_transcripts_are_streamed(client: Any) -> None:
    long = wav(numbered(70, first=10), subtype="FLOAT")
    asked: dict[str, Any] = {"model": "whisper:toy", "file": ("a.wav", long)}
    *deltas, done = [checked(each) for each in client.audio.transcriptions.create(**asked, stream=True)]
    assert {each.type for each in deltas} == {"transcript.text.delta"} and done.type == "transcript.text.done"
    assert "".join(each.delta for each in deltas) == done.text and len(deltas) > 3
    assert done.text == client.audio.transcriptions.create(**asked).text
    assert done.auricle["receipt"]["complete"] and len(done.segments) == len(deltas)
    short = client.audio.transcriptions.create(model="talker", file=("a.wav", CLIP), stream=True)
    *_, last = [checked(each) for each in short]
    assert last.usage.total_tokens > 0


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("response_format", {"response_format": "diarized_json"}),
        ("response_format", {"response_format": "srt", "stream": True}),
        ("prompt", {"prompt": "Names: Ada"}),
        ("temperature", {"temperature": 0.5}),
        ("timestamp_granularities[]", {"timestamp_granularities": ["word"]}),
        ("timestamp_granularities[]", {"timestamp_granularities": ["word"], "response_format": "verbose_json"}),
        ("include[]", {"include": ["logprobs"]}),
        ("chunking_strategy", {"chunking_strategy": {"type": "server_vad"}}),
    ],
)
def test_transcripts_refuse_what_they_cannot_honour(client: Any, param: str, more: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="talker", file=("a.wav", CLIP), **more)
    assert caught.value.param.startswith(param.removesuffix("[]")) and caught.value.type == "invalid_request_error"


def test_translations_are_refused(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="translate") as caught:
        client.audio.translations.create(model="auricle-tiny", file=("a.wav", CLIP))
    assert caught.value.code == "model_cannot"


def test_embeddings_of_texts_and_clips(client: Any, server: Running, aligner: Aligner) -> None:
    inputs = ["a dog", audio_part(CLIP), {"type": "text", "text": "rain"}]
    found = checked(client.embeddings.create(model=ALIGNER, input=inputs))
    assert type(found) is CreateEmbeddingResponse and [each.index for each in found.data] == [0, 1, 2]
    vectors = np.array([each.embedding for each in found.data], np.float32)
    texts = [aligner.text([each])[0].numpy() for each in ("a dog", "rain")]
    clip = aligner.audio([_decoded(CLIP)]).numpy()
    np.testing.assert_array_equal(vectors, np.stack([texts[0], clip[0], texts[1]]))
    assert found.usage.prompt_tokens == found.usage.total_tokens > 50
    assert found.auricle["receipts"][0]["file"] == "input[1]"
    body = {"model": ALIGNER, "input": "a dog"}
    raw = server.http.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert len(raw) == 4 * 16 and struct.calcsize("<12f") == 48
    assert server.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"] == texts[0].tolist()
    assert client.embeddings.create(model=ALIGNER, input="a dog", dimensions=12).data[0].embedding == texts[0].tolist()
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=ALIGNER, input="a dog", dimensions=6)
    assert caught.value.param == "dimensions"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=ALIGNER, input=[1, 2, 3])
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="auricle-tiny", input="x")


def test_errors_are_the_classes_of_the_client(client: Any, server: Running) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="talker", file=("a.wav", b"no audio" * 100))
    assert caught.value.code == "unsupported_format" and caught.value.request_id.startswith("req_")
    with pytest.raises(openai.APIStatusError) as too_long:
        client.audio.transcriptions.create(model="talker", file=("a.wav", wav(np.zeros(8_000 * 601, "i2"), 8_000)))
    assert (too_long.value.status_code, too_long.value.code) == (413, "limit_exceeded")
    assert error_of(server.http.get("/v1/nothing"))["code"] == "not_found"
    assert error_of(server.http.get("/v1/embeddings"))["code"] == "method_not_allowed"
    assert error_of(server.http.post("/v1/embeddings", content=b'{"a": 1, "a": 2}'))["code"] == "invalid_json"
    assert error_of(server.http.post("/v1/embeddings", content=b"[" * 100_000))["code"] == "invalid_json"
    assert error_of(server.http.post("/v1/audio/describe", json={}))["code"] == "invalid_form"
    assert error_of(server.post("/v1/audio/describe", None, stream="true"))["code"] in ("missing_file", "invalid_form")


def test_the_client_tries_again(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from auricle.serve.admission import Admission
    from auricle.serve.faults import ApiError

    refusals = [ApiError(429, "full", "overloaded", retry_after_s=1), ApiError(503, "busy", "loading")]
    whole = Admission.check

    def check(self: Admission, lane: str = "short") -> None:
        if refusals:
            raise refusals.pop()
        whole(self, lane)

    monkeypatch.setattr(Admission, "check", check)
    with running(models=models) as own, openai.OpenAI(base_url=f"{own.url}/v1", api_key="x", max_retries=2) as client:
        found = client.chat.completions.with_raw_response.create(model="talker", messages=user("Hi"), max_tokens=2)
        assert found.retries_taken == 2 and found.parse().choices


def _refusal(client: Any, status: int = 400, **more: Any) -> Any:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**{"model": "talker", "messages": QUESTION, **more})
    assert caught.value.status_code == status and caught.value.type == "invalid_request_error"
    return caught.value


def _first(client: Any, model: str, messages: Any, **more: Any) -> str:
    found = client.chat.completions.create(model=model, messages=messages, **more)
    return str(found.choices[0].message.content)


def _decoded(content: bytes) -> Any:
    from auricle.audio.decode import decode

    return decode(content)
