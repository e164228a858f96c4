"""Train the byte-level BPE of the tiny models on their prompts and answers.

Usage: python recipes/tiny/tokenizer.py SHARDS OUT.json [--vocab 2048] [--examples 40000] [--seed 0]
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from auricle.data.parts import Part, Scene
from auricle.data.shards import ShardSet
from auricle.data.wording import example

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
# Words with their leading space, runs of punctuation, single digits: the split Qwen2's tokenizer uses.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts(shards: ShardSet, count: int, seed: int) -> Iterator[str]:
    """Prompts and answers about random pairs of clips, and every transcript."""
    rng = np.random.default_rng(seed)
    parts = [Part.from_meta(shards.read_meta(i)) for i in range(len(shards))]
    silence = np.zeros(16_000, dtype=np.float32)
    for _ in range(count):
        front, back = (parts[int(i)] for i in rng.integers(len(parts), size=2))
        if front.kind == "sound" and rng.random() < 0.2:  # details that scenes add
            front = replace(front, count=int(rng.integers(2, 5)))
        back = replace(back, loudness=("quiet", "loud", None, None)[int(rng.integers(4))])
        if rng.random() < 0.7 or front.kind == back.kind:
            scene = Scene(silence, (front,), f"pure_{front.kind}")
        else:
            scene = Scene(silence, (front, back), f"mixed_{front.kind}", "over")
        yield from example(scene, rng)
    yield from (part.text for part in parts if part.text)


def main() -> None:
    """Parse, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("out")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--examples", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(ShardSet(options.shards), options.examples, options.seed), trainer)
    tokenizer.save(options.out)
    print(f"{options.out}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
