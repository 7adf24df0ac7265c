import numpy as np
from numpy.typing import NDArray

def joint_counts(target: NDArray[np.uint8], atlas: NDArray[np.uint8]) -> NDArray[np.int64]: ...
def joint_counts_affine(
    target: NDArray[np.uint8],
    points: NDArray[np.float32],
    atlas: NDArray[np.uint8],
    matrix: NDArray[np.float64],
) -> NDArray[np.int64]: ...
def labels_affine(
    points: NDArray[np.float32], atlas: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> NDArray[np.uint8]: ...
