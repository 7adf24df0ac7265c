from .result import RefineResult as RefineResult
