from ._refine import refine as refine, warm_up as warm_up
from .options import RefineOptions as RefineOptions
from .views import View as View
