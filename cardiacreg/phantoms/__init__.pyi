from .acquisition import (
    Degradation as Degradation,
    LowResolution as LowResolution,
    simulate_low_resolution as simulate_low_resolution,
)
from .hearts import sample_heart as sample_heart
