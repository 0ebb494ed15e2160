"""Labels are the names that a person writes: of data sets, of models and of scores."""

import re

import pytest

from jaxood.report.labels import TITLES, label


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fashion_mnist/rotated", "Fashion-MNIST, rotated"),
        ("digits/rotated_bilinear", "digits, rotated bilinear"),
        ("celeb_a/scaled_0.8", "CelebA × 0.8"),
        ("celeb_a/unit_scaled_0.8", "CelebA × 0.8 in [−1, 1]"),
        ("fashion_mnist (control)", "Fashion-MNIST (control)"),
        ("svhn_cropped/contrast_0.5 (control)", "SVHN, contrast × 0.5 (control)"),
        ("digits", "digits"),
        ("digits/contrast_2/rotated/scaled_0.5", "digits, contrast × 2, rotated × 0.5"),
        ("downsampled_imagenet", "ImageNet 32×32"),
        ("rotated", "rotated"),
        ("my_own_photos", "my own photos"),
        ("my_own_photos/rotated", "my own photos, rotated"),
        ("/data/my_photos", "/data/my_photos"),
        ("/data/my_photos/scaled_0.5", "/data/my_photos × 0.5"),
        ("/data/scaled_x", "/data/scaled_x"),
        ("scaled_x", "scaled x"),
    ],
)
def test_a_data_set_is_labelled_with_its_transforms_and_its_note(name, text):
    assert label(name) == text


def test_a_score_is_labelled_with_its_layer_and_its_reduction():
    assert label("nrm_reconstruction", {"layer": 3}) == "reconstruction, layer 3"
    mean = {"layer": 12, "reduction": "mean"}
    assert label("nrm_reconstruction", mean) == "reconstruction, layer 12, mean"
    assert label("nrm_latent", {"reduction": "sum", "draws": 2}) == "−log p(z*|y*)"
    assert label("nrm_latent", {"reduction": "mean"}) == "−log p(z*|y*), mean"


def test_labels_of_models_and_scores():
    """Models and scores whose label is not their name without underscores."""
    names = """
        glow Glow | nrm NRM | pixelcnn PixelCNN++
        realnvp RealNVP | vae VAE | batch_norm_delta BatchNorm Δ | batch_norm_rank BatchNorm T
        glow_neg_log_pz −log p(z), Glow | neg_log_prob −log p(x) | nrm_latent −log p(z*|y*)
        nrm_latent_class_centred −log p(z*|y*), class-centred
        nrm_latent_per_energy −log p(z*|y*) / |x|²
        nrm_latent_two_sided −log p(z*|y*), two-sided | nrm_latent_waic WAIC of log p(z*|y*)
        nrm_neg_log_prob −log p(x), NRM
        nrm_profile NRM profile | nrm_reconstruction reconstruction | nrm_switches NRM switches
        t_perm Tₚₑᵣₘ | waic WAIC
    """
    # One an entry: on one line they are separated by " | ".
    entries = re.split(r"\s*\n\s*| \| ", names.strip())
    assert {f"{name} {label(name)}" for name in TITLES} == set(entries)


@pytest.mark.parametrize("name", sorted(TITLES))
def test_a_label_is_its_own_label(name):
    assert label(label(name)) == label(name)


def test_labels_of_the_data_sets():
    names = """
        celeb_a CelebA | cifar10 CIFAR-10 | cifar100 CIFAR-100 | fashion_mnist Fashion-MNIST
        downsampled_imagenet ImageNet 32×32 | imagenet ImageNet | kmnist KMNIST | lsun LSUN
        mnist MNIST | omniglot Omniglot | svhn SVHN | svhn_cropped SVHN
        tiny_imagenet32 Tiny-ImageNet
    """
    for entry in re.split(r"\s*\n\s*| \| ", names.strip()):
        name, text = entry.split(" ", 1)
        assert label(name) == text
