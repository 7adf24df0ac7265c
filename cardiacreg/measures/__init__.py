"""Numbers of a model: volumes, masses, function, wall thickness by segment."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
