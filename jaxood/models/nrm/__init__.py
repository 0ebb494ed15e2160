"""The neural rendering model (NRM): a ConvNet, read backwards."""

from jaxood.models.nrm.architectures import all_cnn_c, all_conv_13, convpool_cnn_c, resnet
from jaxood.models.nrm.losses import LossWeights, nrm_loss
from jaxood.models.nrm.model import NRM, nrm

__all__ = [
    "NRM",
    "LossWeights",
    "all_cnn_c",
    "all_conv_13",
    "convpool_cnn_c",
    "nrm",
    "nrm_loss",
    "resnet",
]
