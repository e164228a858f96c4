"""Embed and compare clips.

`embed` gives one vector a clip, the mean of its frames; `encode` gives the frames, 25 a second.
"""

from pathlib import Path

import torch.nn.functional as F

import auricle

files = sorted(Path(__file__).parent.glob("*.ogg"))
encoder = auricle.load_encoder("auricle-tiny-encoder")
embeddings = encoder.embed(files)
print("clips, width:", tuple(embeddings.shape))

similarity = F.cosine_similarity(embeddings[:, None], embeddings[None], dim=-1)
for file, row in zip(files, similarity.fill_diagonal_(-1), strict=True):
    print(f"{file.name:22} is nearest to {files[int(row.argmax())].name}")

frames, lengths = encoder.encode(files[:2])
print("clips, frames, width:", tuple(frames.shape), "valid frames:", lengths.tolist())
