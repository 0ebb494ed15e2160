"""The neural rendering model (NRM): a ConvNet, read backwards.

``nrm.all_cnn_c`` and the other networks are models; ``nrm.nrm`` makes one of any chain of layers.
``nrm.explain`` classifies images and renders them back; ``nrm.loss`` is the training loss.
"""

from jaxood.models.nrm.architectures import all_cnn_c, all_conv_13, convpool_cnn_c, resnet
from jaxood.models.nrm.chain import nrm, scale
from jaxood.models.nrm.explanation import Explanation, explain
from jaxood.models.nrm.folded import Folded, fold, paths
from jaxood.models.nrm.losses import LossWeights, loss
from jaxood.models.nrm.model import NRM
from jaxood.models.nrm.network import Latents, Layer

__all__ = [
    "NRM",
    "Explanation",
    "Folded",
    "Latents",
    "Layer",
    "LossWeights",
    "all_cnn_c",
    "all_conv_13",
    "convpool_cnn_c",
    "explain",
    "fold",
    "loss",
    "nrm",
    "paths",
    "resnet",
    "scale",
]
