from ._refine_cine import refine_cine as refine_cine
from .result import CineFrame as CineFrame, CineResult as CineResult
from .saved import SavedCine as SavedCine, load_cine as load_cine
