"""Pages to look at: of a patient with its verdict, and of a cohort."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
