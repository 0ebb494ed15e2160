"""Out-of-distribution detection with deep generative models, in JAX and Flax."""

from jaxood import cpu_fusion as cpu_fusion  # first: XLA reads its flags once

# isort: split
from jaxood import data, detector, metrics, optimizers, parallel, scores, stream, train
from jaxood.density import DensityModel, bits_per_dim
from jaxood.models.glow import glow
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
    "glow",
    "metrics",
    "nrm_loss",
    "optimizers",
    "parallel",
    "pixelcnn",
    "realnvp",
    "resnet",
    "scores",
    "stream",
    "train",
    "vae",
]
