"""Check batch invariance.

A clip's result depends on the clip alone: alone, or in one batch with longer and louder clips: the same embedding,
within the rounding of float32.
"""

import numpy as np

import auricle

rng = np.random.default_rng(0)
encoder = auricle.load_encoder("auricle-tiny-encoder")
quiet = 0.001 * rng.standard_normal(16_000).astype("float32")  # 1 s at 16 kHz
loud = 0.5 * rng.standard_normal(160_000).astype("float32")  # 10 s

alone = encoder.embed([quiet])[0]
in_a_batch = encoder.embed([loud, quiet, loud])[1]
print("equal within 1e-5:", bool((alone - in_a_batch).abs().max() < 1e-5))
