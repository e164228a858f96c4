"""An index of a folder of clips, and queries by words or by a clip."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
