"""Names of models, scores and data sets as a person writes them."""

from collections.abc import Mapping
from typing import Any

from jaxood import data

TITLES = {
    "glow": "Glow",
    "nrm": "NRM",
    "pixelcnn": "PixelCNN++",
    "realnvp": "RealNVP",
    "vae": "VAE",
    "batch_norm_delta": "BatchNorm Δ",
    "batch_norm_rank": "BatchNorm T",
    "glow_neg_log_pz": "−log p(z), Glow",
    "neg_log_prob": "−log p(x)",
    "nrm_latent": "−log p(z*|y*)",
    "nrm_latent_class_centred": "−log p(z*|y*), class-centred",
    "nrm_latent_per_energy": "−log p(z*|y*) / |x|²",
    "nrm_latent_two_sided": "−log p(z*|y*), two-sided",
    "nrm_latent_waic": "WAIC of log p(z*|y*)",
    "nrm_neg_log_prob": "−log p(x), NRM",
    "nrm_profile": "NRM profile",
    "nrm_reconstruction": "reconstruction",
    "nrm_switches": "NRM switches",
    "t_perm": "Tₚₑᵣₘ",
    "waic": "WAIC",
}
"""Titles of models and scores by their names."""


def label(name: str, params: Mapping[str, Any] | None = None) -> str:
    """Write the name of a model, of a score or of a data set as a person does.

    Args:
        name: a model's or score's name, or a data set's as `data.title` takes it.
        params: settings of a score, as in `ResultRow.params`; of these ``layer`` and the
            ``reduction`` ``"mean"`` are named.
    """
    text = TITLES.get(name) or data.title(name)
    if params and "layer" in params:
        text += f", layer {params['layer']}"
    if params and params.get("reduction") == "mean":
        text += ", mean"
    return text
