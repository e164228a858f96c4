"""Which pairs of sound and caption are worth keeping: calibrated scores, duplicates, and shards split by them."""
