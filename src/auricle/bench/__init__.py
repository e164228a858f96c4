"""Frozen encoders and audio–text models, measured: tasks, one embedding pass, heads, HEAR, X-ARES, results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
