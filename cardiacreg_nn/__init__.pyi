from .inference.cine_prediction import predict_cine as predict_cine
from .inference.prediction import load_model as load_model, predict as predict
from .inference.view_prediction import (
    agreement_with_stack as agreement_with_stack,
    as_view as as_view,
    predict_view as predict_view,
    predict_view_cine as predict_view_cine,
)
from .inference.weights import (
    Model as Model,
    load_weights as load_weights,
    save_weights as save_weights,
)
from .networks.sslln import SSLLN as SSLLN, NetworkConfig as NetworkConfig
