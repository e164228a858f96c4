"""Names, paths and hub ids → models; safe readers and writers of each official layout; the embedded family."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
