from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from auricle.bench.asr_head import END, SEPARATOR, AsrAdapter, AsrHead, AsrSettings, Utterance, train_asr
from auricle.errors import ConfigError, DataError, PromptError
from auricle.models.qwen import QwenConfig, QwenForCausalLM
from auricle.models.stock_decoder import Decoder, StockDecoder

VOCABULARY = ["one", "two", "three", "four", "five", "six"]
DIM = 6


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*VOCABULARY, SEPARATOR, END])}))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([SEPARATOR, END])
    return made


GEOMETRY: dict[str, Any] = {
    "vocab_size": len(VOCABULARY) + 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,  # of the default 0.02 a network so small says the same of everything
    "max_position_embeddings": 512,
}


def stock_model() -> Qwen2ForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2ForCausalLM(Qwen2Config(**GEOMETRY, rope_parameters={"rope_theta": 1e4, "rope_type": "default"}))


def language_model(kind: str = "ours") -> Decoder:
    """The same weights in our decoder, or in that of transformers."""
    stock = stock_model()
    if kind == "transformers":
        return StockDecoder(stock)
    with torch.random.fork_rng():
        model = QwenForCausalLM(QwenConfig(**GEOMETRY, rope_theta=1e4))
    model.load_state_dict(stock.state_dict())
    return model


def spoken(text: str, frames_per_word: int = 2) -> Utterance:
    numbers = [VOCABULARY.index(word) for word in text.split()]
    return Utterance(F.one_hot(torch.tensor(numbers), DIM).float().repeat_interleave(frames_per_word, 0), text)


TEXTS = ["one", "two three", "four", "five five one", "six two"]


@pytest.fixture(params=["ours", "transformers"])
def head(request: pytest.FixtureRequest) -> AsrHead:
    return AsrHead(language_model(request.param), tokenizer(), DIM)


def test_sizes_come_from_the_language_model(head: AsrHead) -> None:
    assert head.adapter.fc_1.weight.shape == (48, DIM) and head.adapter.proj.weight.shape == (32, 48)
    standard = AsrAdapter(768)
    assert standard.fc_2.weight.shape == (4864, 768) and standard.proj.weight.shape == (896, 4864)
    assert not head.decoder.training and not any(p.requires_grad for p in head.decoder.parameters())
    assert not head.train().decoder.training and head.adapter.training and not head.eval().adapter.training


def test_the_loss_is_that_of_the_language_model(head: AsrHead) -> None:
    """Of text and end alone, frames and separator carry none."""
    frames, text = spoken("two three")
    text_ids = [1, 2, head.end_id]
    vectors = head.decoder.get_input_embeddings()(torch.tensor([[head.separator_id, *text_ids]]))
    inputs = torch.cat([head.adapter(frames)[None], vectors], dim=1)
    labels = torch.tensor([[-100] * (len(frames) + 1) + text_ids])
    expected = stock_model()(inputs_embeds=inputs, labels=labels).loss
    assert head.loss([Utterance(frames, text)]).item() == pytest.approx(expected.item(), abs=1e-5)


def test_utterances_do_not_depend_on_each_other(head: AsrHead) -> None:
    batch = [spoken(text, frames) for text, frames in zip(TEXTS, (1, 3, 9, 2, 4), strict=True)]
    together, wanted = head.outputs(batch)
    alone = [head.outputs([each]) for each in batch]
    assert torch.equal(wanted, torch.cat([truth for _, truth in alone]))
    assert torch.allclose(together, torch.cat([logits for logits, _ in alone]), atol=1e-4)
    frames = [each.frames for each in batch]
    assert head.transcribe(frames, max_new_tokens=7) == [
        head.transcribe([each], max_new_tokens=7)[0] for each in frames
    ]


# It says that the penalty spares the prompt, which is what we compare with.
@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with:UserWarning")
@pytest.mark.parametrize("penalty", [1.0, 1.1, 3.0])
def test_transcripts_are_those_of_transformers(head: AsrHead, penalty: float) -> None:
    transcripts, stock = set(), stock_model()
    for text in TEXTS:
        frames = spoken(text).frames
        separator = head.decoder.get_input_embeddings()(torch.tensor([[head.separator_id]]))
        inputs = torch.cat([head.adapter(frames)[None], separator], dim=1).detach()
        config = GenerationConfig(
            max_new_tokens=12, repetition_penalty=penalty, eos_token_id=head.end_id, pad_token_id=head.end_id
        )
        mask = torch.ones(inputs.shape[:2], dtype=torch.long)
        theirs = stock.generate(inputs_embeds=inputs, attention_mask=mask, generation_config=config)[0]
        expected = head.tokenizer.decode(theirs.tolist(), skip_special_tokens=True)
        ours = head.transcribe([frames], max_new_tokens=12, repetition_penalty=penalty)
        assert ours == [expected]
        transcripts.add(ours[0])
    assert len(transcripts) > 1  # else this test would show little


def test_the_adapter_learns_and_the_language_model_does_not(head: AsrHead) -> None:
    before = {name: value.clone() for name, value in head.decoder.state_dict().items()}
    utterances = [spoken(text) for text in TEXTS]
    scores = train_asr(head, utterances, utterances, settings=AsrSettings(epochs=40, batch_size=2, rate=1e-2))
    assert all(torch.equal(value, before[name]) for name, value in head.decoder.state_dict().items())
    assert max(scores) > scores[0] + 0.5
    with torch.no_grad():
        count = sum(len(text.split()) + 1 for text in TEXTS)
        left = sum(head.loss([u]).item() * (len(u.text.split()) + 1) for u in utterances) / count
    assert left == pytest.approx(-max(scores), abs=1e-4)  # the best epoch is what is left in the head
    transcripts = head.transcribe([each.frames for each in utterances])
    assert sum(found == text for found, text in zip(transcripts, TEXTS, strict=True)) >= 4


def test_the_released_validation_sees_the_true_words(head: AsrHead) -> None:
    utterances = [spoken(text) for text in TEXTS]
    seen: list[int] = []
    fixed = AsrSettings(epochs=30, batch_size=2, rate=1e-2, validation="teacher_forced")
    scores = train_asr(head, utterances, utterances, settings=fixed, on_epoch=lambda epoch, score: seen.append(epoch))
    assert seen == list(range(30))
    assert max(scores) >= 0.8 and all(0 <= score <= 1 for score in scores)
    texts = head.teacher_forced(utterances)
    assert [len(text.split()) <= len(truth.split()) for text, truth in zip(texts, TEXTS, strict=True)] == [True] * 5


def test_training_repeats_itself_and_leaves_the_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    heads = []
    for _ in range(2):
        torch.manual_seed(3)
        head = AsrHead(language_model(), tokenizer(), DIM, seed=7)
        train_asr(head, [spoken(text) for text in TEXTS], [spoken("six")], settings=AsrSettings(epochs=2))
        assert torch.equal(torch.rand(1), expected)
        heads.append(head.adapter.state_dict())
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_what_is_refused(head: AsrHead) -> None:
    with pytest.raises(ConfigError, match="name tokens that it has"):
        AsrHead(language_model(), tokenizer(), DIM, separator="<|audio|>")
    for values in ({"epochs": 0}, {"rate": 0.0}, {"seed": -1}, {"validation": "wer"}):
        with pytest.raises(ConfigError):
            AsrSettings(**values)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="with frames"):
        train_asr(head, [spoken("one")], [])
    with pytest.raises(DataError, match="with frames"):
        train_asr(head, [Utterance(torch.zeros(0, DIM), "one")], [spoken("one")])
    with pytest.raises(PromptError, match="context"):
        head.transcribe([torch.zeros(400, DIM)])
