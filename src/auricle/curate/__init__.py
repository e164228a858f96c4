"""Which pairs of audio and captions are worth keeping: calibrated scores, duplicates, and shards split by them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
