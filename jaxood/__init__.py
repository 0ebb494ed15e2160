"""Out-of-distribution detection with deep generative models, in JAX and Flax."""

from jaxood.parallel import cpu_fusion as cpu_fusion  # first: XLA reads its flags once

# isort: split
from jaxood import data, detector, metrics, parallel, scores, stream, train
from jaxood.density import DensityModel, bits_per_dim
from jaxood.models import nrm
from jaxood.models.ensemble import ensemble
from jaxood.models.glow import glow
from jaxood.models.mates_only import mates_only
from jaxood.models.pixelcnn import pixelcnn
from jaxood.models.realnvp import realnvp
from jaxood.models.vae import vae

__all__ = [
    "DensityModel",
    "bits_per_dim",
    "data",
    "detector",
    "ensemble",
    "glow",
    "mates_only",
    "metrics",
    "nrm",
    "parallel",
    "pixelcnn",
    "realnvp",
    "scores",
    "stream",
    "train",
    "vae",
]
