"""The BatchNorm paper's own numbers: Tables 1, 2, 4 and 5, and the temperatures of Appendix B.

The paper's ImageNet is `downsampled_imagenet`, its LSUN `lsun`. The column r2 = 0.5 of the VAE in
Table 5 is None, since it repeats WAIC of Table 2. Table 1(b) prints 8.56 where its own rows differ
by 8.66.
"""

from collections.abc import Mapping

from experiments.batch_norm.settings import SWEEP_R2

_OOD = {
    "fashion_mnist": ("fashion_mnist/rotated", "mnist", "omniglot", "kmnist"),
    "cifar10": ("cifar10/rotated", "svhn_cropped", "downsampled_imagenet", "lsun"),
}
_AUROC = {  # Table 2: log p, T_perm, WAIC and Δ; Table 5: Δ with r1 -> 0, by r2
    ("realnvp", "fashion_mnist/rotated"): ((0.76, 0.64, 0.99, 0.99), (0.93, 0.91, 0.98, 0.99)),
    ("realnvp", "mnist"): ((0.10, 0.78, 0.24, 1.00), (0.92, 1.00, 1.00, 1.00)),
    ("realnvp", "omniglot"): ((0.05, 0.86, 0.97, 1.00), (0.96, 0.95, 1.00, 1.00)),
    ("realnvp", "kmnist"): ((0.47, 0.45, 0.63, 1.00), (0.86, 1.00, 1.00, 1.00)),
    ("vae", "fashion_mnist/rotated"): ((0.73, 0.61, 0.94, 0.97), (0.88, 0.94, None, 0.97)),
    ("vae", "mnist"): ((0.13, 0.73, 0.56, 1.00), (0.86, 0.99, None, 1.00)),
    ("vae", "omniglot"): ((0.00, 0.99, 0.90, 1.00), (0.93, 0.98, None, 1.00)),
    ("vae", "kmnist"): ((0.55, 0.50, 0.84, 1.00), (0.85, 0.99, None, 1.00)),
    ("realnvp", "cifar10/rotated"): ((0.87, 0.79, 0.99, 1.00), (1.00, 1.00, 1.00, 1.00)),
    ("realnvp", "svhn_cropped"): ((0.07, 0.86, 0.16, 1.00), (0.92, 1.00, 1.00, 1.00)),
    ("realnvp", "downsampled_imagenet"): ((0.51, 0.50, 0.58, 0.98), (0.74, 0.92, 0.98, 0.98)),
    ("realnvp", "lsun"): ((0.70, 0.58, 0.60, 0.99), (0.77, 0.98, 1.00, 0.99)),
    ("pixelcnn", "cifar10/rotated"): ((0.77, 0.67, 0.90, 0.99), (0.87, 0.97, 1.00, 0.99)),
    ("pixelcnn", "svhn_cropped"): ((0.10, 0.86, 0.09, 0.99), (0.76, 0.95, 1.00, 0.99)),
    ("pixelcnn", "downsampled_imagenet"): ((0.51, 0.49, 0.66, 0.89), (0.62, 0.74, 0.87, 0.89)),
    ("pixelcnn", "lsun"): ((0.72, 0.60, 0.78, 0.98), (0.72, 0.80, 0.98, 0.98)),
}
_SCORES = ("neg_log_prob", "t_perm", "waic", "batch_norm_delta")
_SWEEP = tuple(f"batch_norm_delta@{r2}" for r2 in SWEEP_R2)

_TABLE_1 = {  # bits per dimension, evaluation and training mode
    ("fashion_mnist", "realnvp"): {"fashion_mnist": (2.92, 2.94), "mnist": (1.74, 9.47)},
    ("cifar10", "realnvp"): {"cifar10": (3.48, 3.51), "svhn_cropped": (2.44, 11.10)},
    ("fashion_mnist", "vae"): {"fashion_mnist": (3.19, 3.20), "mnist": (1.97, 8.50)},
    ("cifar10", "pixelcnn"): {"cifar10": (3.21, 3.33), "svhn_cropped": (2.16, 4.04)},
}

TABLE_4: Mapping[float, tuple[float, float]] = {
    0.7: (1.51, 317),
    1.0: (2.88, 328),
    1.3: (5.43, 16.0),
}
"""By temperature: bits per dimension, in evaluation and training mode under RealNVP trained on
CIFAR-10, of samples of RealNVP trained on SVHN."""
TEMPERATURES: Mapping[str, float] = {"realnvp": 1.10, "pixelcnn": 1.17}
"""The temperature, by model, of the samples that fool the paper's own models (Appendix B)."""


def auroc(in_dist: str, model: str) -> dict[tuple[str, str], float]:
    """Look up AUROCs by (set, score): Table 2, and Table 5 under ``batch_norm_delta@<r2>``."""
    return {
        (name, score): value
        for name in _OOD.get(in_dist, ())
        for scores, values in zip((_SCORES, _SWEEP), _AUROC.get((model, name), ()), strict=False)
        for score, value in zip(scores, values, strict=True)
        if value is not None
    }


def bpd(in_dist: str, model: str) -> dict[tuple[str, str, str], float]:
    """Look up bits per dimension by (model, set, mode), of Table 1."""
    return {
        (model, name, mode): value
        for name, values in _TABLE_1.get((in_dist, model), {}).items()
        for mode, value in zip(("evaluation", "training"), values, strict=True)
    }
