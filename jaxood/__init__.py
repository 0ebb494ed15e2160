"""Out-of-distribution detection with deep generative models, in JAX and Flax."""

from jaxood import data, detector, metrics, scores, stream, train
from jaxood.density import DensityModel, bits_per_dim
from jaxood.models.nrm_architectures import all_cnn_c, all_conv_13, convpool_cnn_c, resnet
from jaxood.models.nrm_losses import Weights, nrm_loss
from jaxood.models.pixelcnn import pixelcnn
from jaxood.models.realnvp import realnvp
from jaxood.models.vae import vae

__all__ = [
    "DensityModel",
    "Weights",
    "all_cnn_c",
    "all_conv_13",
    "bits_per_dim",
    "convpool_cnn_c",
    "data",
    "detector",
    "metrics",
    "nrm_loss",
    "pixelcnn",
    "realnvp",
    "resnet",
    "scores",
    "stream",
    "train",
    "vae",
]
