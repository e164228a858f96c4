"""Single-device networks and their configs, one file a family. Knows nothing of files, devices or the command line."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
