from .acquisition import (
    Degradation as Degradation,
    LowResolution as LowResolution,
    simulate_low_resolution as simulate_low_resolution,
)
from .hearts import sample_heart as sample_heart
from .long_axis_views import (
    SimulatedView as SimulatedView,
    ViewAcquisition as ViewAcquisition,
    simulate_view_frames as simulate_view_frames,
    simulate_views as simulate_views,
)
