from .bids import write_bids as write_bids
from .result import RefineResult as RefineResult
from .saved import SavedResult as SavedResult, load_result as load_result
