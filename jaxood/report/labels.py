"""Names of models, data sets and scores as a person writes them."""

import re


def label(name: str) -> str:
    """The name of a model, data set or score as a person writes it; others lose underscores.

    The transforms of a data set follow its name; a note in brackets, ``<name> (control)``, stays.
    Samples of a model are ``<model>(<its data set>), T = <temperature>``.
    """
    if match := re.fullmatch(r"nrm_reconstruction_(\d+)(_mean)?", name):
        return f"reconstruction, layer {match[1]}" + (", mean" if match[2] else "")
    if match := re.fullmatch(r"(\w+)\((.+)\), (T = [\d.]+)", name):
        return f"{label(match[1])} ({label(match[2])}, {match[3]})"
    name, bracket, note = name.partition(" (")
    base, *transforms = name.strip("/").split("/")
    text = _LABELS.get(base, base.replace("_", " ").strip())
    for transform in transforms:
        if match := re.fullmatch(r"(scaled|unit_scaled|contrast)_([\d.]+)", transform):
            text += _FACTORS[match[1]].format(match[2])
        else:
            text += f", {label(transform)}"
    return text + bracket + note


_LABELS = {
    "celeb_a": "CelebA",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "downsampled_imagenet": "ImageNet 32×32",
    "fashion_mnist": "Fashion-MNIST",
    "imagenet": "ImageNet",
    "kmnist": "KMNIST",
    "lsun": "LSUN",
    "mnist": "MNIST",
    "omniglot": "Omniglot",
    "svhn": "SVHN",
    "svhn_cropped": "SVHN",
    "tiny_imagenet32": "Tiny-ImageNet",
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
    "nrm_latent_mean": "−log p(z*|y*), mean",
    "nrm_latent_per_energy": "−log p(z*|y*) / |x|²",
    "nrm_latent_two_sided": "−log p(z*|y*), two-sided",
    "nrm_latent_waic": "WAIC of log p(z*|y*)",
    "nrm_neg_log_prob": "−log p(x), NRM",
    "nrm_neg_log_prob_mean": "−log p(x), NRM, mean",
    "nrm_profile": "NRM profile",
    "nrm_switches": "NRM switches",
    "t_perm": "Tₚₑᵣₘ",
    "waic": "WAIC",
}


_FACTORS = {"scaled": " × {}", "unit_scaled": " × {} in [−1, 1]", "contrast": ", contrast × {}"}
