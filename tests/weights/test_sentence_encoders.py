from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from auricle.errors import LayoutMismatch
from auricle.weights.sentence_encoders import load_error_detector, load_sentence_encoder

from .toy_sentences import write_detector, write_encoder


def test_the_detector_reads_the_released_layout(tmp_path: Path) -> None:
    folder, network, head = write_detector(tmp_path / "d")
    detector = load_error_detector(folder)
    ids = torch.tensor([[2, 4, 7, 11, 3]])  # a dog barks
    expected = torch.sigmoid(head(network(ids).last_hidden_state[:, 0]))[0, -1].item()
    assert detector.probabilities(["A dog, barks!", "rain", "a DOG barks"])[[0, 2]].tolist() == pytest.approx(
        [expected] * 2
    )
    assert len(detector.probabilities([])) == 0


def test_the_detector_reads_combining_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, read = load_error_detector(write_detector(tmp_path / "d")[0]), list[str]()
    monkeypatch.setattr(detector, "_logits", lambda texts: (read.extend(texts), torch.zeros(len(texts), 1))[1])
    detector.probabilities(["A CAFE\u0301, \u092a\u0940\u0928\u093e!", "so_called: 50%"])
    assert read == ["a cafe\u0301 \u092a\u0940\u0928\u093e", "so_called 50"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "e")
    with pytest.raises(LayoutMismatch, match=r"has no clf\.weight, clf\.bias"):
        load_error_detector(folder)
    tensors = {f"encoder.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    tensors = {name: value for name, value in tensors.items() if "layer.0.output" not in name}
    save_file(tensors | {"clf.weight": torch.zeros(5, 16), "clf.bias": torch.zeros(5)}, folder / "model.safetensors")
    with pytest.raises(LayoutMismatch, match=r"weights and config\.json differ in"):
        load_error_detector(folder)


def test_identities_state_hashes_and_limits(tmp_path: Path) -> None:
    encoder = load_sentence_encoder(str(write_encoder(tmp_path / "e")))
    detector = load_error_detector(write_detector(tmp_path / "d")[0])
    assert encoder.identity.keys() == {"name", "weights_sha256", "tokenizer_sha256", "max_tokens"}
    assert detector.identity.keys() == {"weights_sha256", "tokenizer_sha256", "max_tokens"}
    assert len(detector.sha256) == 64 and encoder.special == (2, 3)


def test_a_sentence_does_not_depend_on_the_others(tmp_path: Path) -> None:
    encoder = load_sentence_encoder(str(write_encoder(tmp_path / "e")))
    texts = ["a dog barks", "rain", "a dog barks", "the man plays loud music"]
    together = encoder.encode(texts)
    assert torch.equal(together[0], together[2]) and together.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    for text, row in zip(texts, together, strict=True):
        assert torch.allclose(encoder.encode([text])[0], row, atol=1e-6)
    assert encoder.encode([]).shape == (0, 16)
