"""Token generation: requests, scheduler, caches, sampling, constraints; knows no audio files and no prompts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
