import numpy as np
from numpy.typing import NDArray

def joint_counts(target: NDArray[np.uint8], atlas: NDArray[np.uint8]) -> NDArray[np.int64]: ...
