from .result import RefineResult as RefineResult
from .saved import SavedResult as SavedResult, load_result as load_result
