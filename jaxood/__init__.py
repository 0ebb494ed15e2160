"""Out-of-distribution detection with deep generative models, in JAX and Flax."""

from jaxood import data, detector, metrics, scores, train
from jaxood.density import DensityModel, bits_per_dim
from jaxood.models.pixelcnn import pixelcnn
from jaxood.models.realnvp import realnvp
from jaxood.models.vae import vae

__all__ = [
    "DensityModel",
    "bits_per_dim",
    "data",
    "detector",
    "metrics",
    "pixelcnn",
    "realnvp",
    "scores",
    "train",
    "vae",
]
