"""The 2.5D network of Duan et al. 2019: from a short-axis image to labels and six landmarks.

``cardiacreg_nn.predict("sax.nii.gz")`` returns a `cardiacreg.Subject` whose labels and landmarks go into
`cardiacreg.refine`. Needs torch (``pip install "cardiacreg[nn]"``).

The rooms, from the bottom::

    networks/   The networks: SSLLN, a slice-wise U-Net, and those they are compared with.
    data/       Training data: hearts, tissues, contrasts, augmentation, batches.
    training/   Training: configuration, losses, the loop, what a run leaves behind.
    inference/  From an image to labels and landmarks: weights, preprocessing, orientation, prediction.
"""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used; where a part is missing, say how to get it."""
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise ModuleNotFoundError(
            f'{error.name} is not installed; the network needs it: pip install "cardiacreg[nn]".',
            name=error.name,
        ) from error
