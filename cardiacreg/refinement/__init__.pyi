from ._refine import refine as refine, warm_up as warm_up
from .options import RefineOptions as RefineOptions
from .verification import Verification as Verification, verify_result as verify_result
from .views import View as View
