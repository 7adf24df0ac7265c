"""The 2.5D network of Duan et al. 2019: from a short-axis image to labels and six landmarks.

``cardiacreg_nn.predict("sax.nii.gz")`` returns a `cardiacreg.Subject` whose labels and landmarks go into
`cardiacreg.refine`. Needs torch (``pip install cardiacreg[nn]``).
"""

from cardiacreg_nn.network import SSLLN, NetworkConfig
from cardiacreg_nn.prediction import load_model, predict
from cardiacreg_nn.weights import Model, load_weights, save_weights

__all__ = [
    "SSLLN",
    "Model",
    "NetworkConfig",
    "load_model",
    "load_weights",
    "predict",
    "save_weights",
]
