"""Give a model another tokenizer: the embedding of each token is the mean of those its text had before.

Usage: python recipes/tiny/retokenize.py OUT MODEL TOKENIZER.json
(MODEL: a folder or name in the MiDashengLM layout; special tokens keep their embeddings)
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from auricle.files import read_regular
from auricle.models.midashenglm import MiDashengLM
from auricle.weights import load_midashenglm, save_midashenglm
from auricle.weights.text_tokenizers import MAX_TOKENIZER_BYTES, open_tokenizer


def pieces(token: str, text: str, old: Tokenizer) -> list[int]:
    """Old ids of what a new token stands for; bytes that are no whole characters one by one."""
    same = old.token_to_id(token)
    if same is not None:
        return [same]
    if "\ufffd" in text:
        return [old.token_to_id(byte) for byte in token]
    return list(old.encode(text, add_special_tokens=False).ids)


def main() -> None:
    """Parse, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("tokenizer", type=Path)
    options = parser.parse_args()
    loaded = load_midashenglm(options.model, dtype="float32")
    tokenizer = open_tokenizer(read_regular(options.tokenizer, MAX_TOKENIZER_BYTES), str(options.tokenizer))
    config = loaded.model.config
    audio_token = tokenizer.token_to_id("<|AUDIO|>")
    text = replace(config.text, vocab_size=tokenizer.get_vocab_size())
    model = MiDashengLM(replace(config, text=text, audio_token_id=audio_token))
    states = loaded.model.state_dict()
    names = {name for name, tensor in model.state_dict().items() if tensor.shape != states[name].shape}
    before = loaded.model.decoder.get_input_embeddings().weight
    after = torch.empty(text.vocab_size, before.shape[1])
    for number in range(text.vocab_size):
        token, words = tokenizer.id_to_token(number), tokenizer.decode([number], skip_special_tokens=False)
        after[number] = before[pieces(token, words, loaded.tokenizer)].mean(0)
    model.load_state_dict({name: after if name in names else states[name] for name in model.state_dict()})
    end, padding = (tokenizer.token_to_id(name) for name in ("<|im_end|>", "<|endoftext|>"))
    card = {"do_sample": False, "eos_token_id": end, "pad_token_id": padding}
    save_midashenglm(options.out, model, tokenizer.to_str(), loaded.chat_template, generation=card)


if __name__ == "__main__":
    main()
