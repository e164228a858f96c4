"""HTML templates, tables, figures and players of every report. Knows nothing of what is reported."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
