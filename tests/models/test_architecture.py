"""The papers' architectures and settings, counted by hand from their texts; nothing is compiled."""

import ast
import itertools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments import bn_cifar, bn_fashion_mnist, fooling, glow_cifar, nrm_cifar, toy
from experiments.batch_norm.settings import R1, R2, SWEEP_R2
from jaxood.models.nrm import LossWeights
from jaxood.models.nrm import architectures as nrm_architectures
from jaxood.models.pixelcnn.network import pixelcnn
from jaxood.models.realnvp import Coupling, RealNVP, realnvp
from jaxood.models.vae import VAE
from jaxood.nn.batch_norm import BatchNorm
from tests.helpers import ROOT, perturb
from tests.mutation_table import MUTATIONS
from tests.mutations import arguments, mutated


def shapes_of(init, image_shape):
    return jax.eval_shape(init, jax.random.key(0), np.zeros((2, *image_shape), np.uint8))


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# ----------------------------------------------------------------------------------------- RealNVP


def resnet_size(channels, width, blocks):
    """One scale-and-shift network (BatchNorm paper, Section 4.1, Appendix C.1).

    A 3x3 convolution; residual blocks of twice BatchNorm and 3x3 convolution; BatchNorm and a 1x1
    convolution to a scale and a shift for each channel, the only one with a bias.
    """
    enter = 9 * channels * width
    block = 2 * (2 * width + 9 * width * width)
    leave = 2 * width + 2 * channels * width + 2 * channels
    return enter + blocks * block + leave


@pytest.mark.parametrize(
    ("shape", "width", "blocks"), [((28, 28, 1), 32, 4), ((32, 32, 3), 64, 8)], ids=str
)
def test_realnvp_is_ten_couplings_of_the_papers_width_and_depth(shape, width, blocks):
    """3 on all pixels; after the squeeze 3 on 4c channels and 4 on half of them, twice as wide."""
    c = shape[2]
    couplings = 3 * [(c, width)] + 3 * [(4 * c, 2 * width)] + 4 * [(2 * c, 2 * width)]
    # Beside its network, each coupling has a bound on the log-scale of each channel.
    expected = sum(resnet_size(n, wide, blocks) + n for n, wide in couplings)
    variables = shapes_of(realnvp(shape, width=width, depth=blocks).init, shape)
    assert size(variables["params"]) == expected
    # A mean and a variance for each BatchNorm channel; none in the flow itself.
    moments = sum(2 * (2 * blocks + 1) * wide for _, wide in couplings)
    assert size(variables["batch_stats"]) == moments


def test_the_default_realnvp_is_that_for_28x28_images():
    shape = (28, 28, 1)
    default, papers = realnvp(shape), realnvp(shape, width=32, depth=4)
    assert shapes_of(default.init, shape) == shapes_of(papers.init, shape)


@pytest.fixture(scope="module")
def coupled():
    """Each coupling of a small flow, one image before it and after it ``(h, w, c)``."""
    net: Any = RealNVP(2, 1, nn.Conv)
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 2)).astype(np.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    variables = perturb(jax.tree.map(lambda s: np.zeros(s.shape), shapes), scale=0.3)

    @jax.jit
    def run(x):
        return net.apply(
            variables,
            x,
            capture_intermediates=lambda module, _: isinstance(module, Coupling),
            mutable=["intermediates"],
        )[1]["intermediates"]

    found = {name: np.asarray(value["__call__"][0][0][0]) for name, value in run(x).items()}
    return x[0], found


def checkerboard(shape):
    """Pixels of even row + column (Dinh et al. 2017, Figure 3), counted out."""
    h, w, c = shape
    return np.array([[[(i + j) % 2 == 0] * c for j in range(w)] for i in range(h)])


def squeeze(x):
    """2x2 patches, row by row, into channels: Dinh et al. 2017, Figure 3, written out."""
    return np.concatenate([x[i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1)


def test_couplings_alternate_and_change_every_value(coupled):
    x, after = coupled
    names = [f"fine_{i}" for i in range(3)]
    names += [f"squeezed_{i}" for i in range(3)] + [f"coarse_{i}" for i in range(4)]
    assert set(after) == set(names)

    before = {"fine_0": x, "squeezed_0": squeeze(after["fine_2"])}
    # Half of the channels leave before the last four couplings.
    before["coarse_0"] = after["squeezed_2"][:, :, :4]
    for one, two in itertools.pairwise(names):
        before.setdefault(two, after[one])
    changed = {name: after[name] != before[name] for name in names}

    first_half = np.zeros((2, 4, 8), bool)
    first_half[:, :, :4] = True
    shown = {
        "fine": checkerboard((4, 8, 2)),
        "squeezed": first_half,
        "coarse": checkerboard((2, 4, 4)),
    }
    for name in names:
        kind, number = name.split("_")
        # The first coupling changes what its mask hides, the second what the first has left.
        expected = ~shown[kind] if int(number) % 2 == 0 else shown[kind]
        np.testing.assert_array_equal(changed[name], expected, err_msg=name)


# --------------------------------------------------------------------------- VAE, PixelCNN++, NRM


@pytest.mark.parametrize(("image", "c"), [(28, 1), (32, 3)])
def test_layers_of_the_vae_are_those_of_table_3(image, c):
    """Its strides make these sizes; parameters are counted in test_vae.py."""
    net: Any = VAE((image, image, c))
    x, noise = np.zeros((2, image, image, c), np.uint8), np.zeros((2, 64), np.float32)
    half, k, a, b = image // 2, image // 4, 32 * c, 64 * c
    encoder = [(image, a), (half, a), (half, a), (k, b), (k, b), (1, 256)]
    decoder = [(k, b), (half, b), (half, b), (image, a), (image, a), (image, a)]
    normalized = [(s, s, channels) for s, channels in decoder + encoder]

    def run():
        def is_norm(module, _):
            return isinstance(module, BatchNorm)

        key = jax.random.key(0)
        return net.init_with_output(key, x, noise, capture_intermediates=is_norm, mutable=True)[1]

    # In the order of names: the decoder's before the encoder's.
    found = jax.tree.leaves(jax.eval_shape(run)["intermediates"])
    assert [leaf.shape[1:] for leaf in found] == normalized


def test_parameters_of_pixelcnn():
    """Salimans et al.'s code with 80 filters, and BatchNorm in place of biases: 13.46 million."""
    f, blocks = 80, 5

    def shifted(taps, c_in, c_out):  # a convolution, and scale and shift of its BatchNorm
        return taps * c_in * c_out + 2 * c_out

    def pointwise(c_in, c_out):
        return c_in * c_out + c_out

    def block(taps, short_cut):  # concat_elu doubles the channels; the second half is a gate
        skip = pointwise(2 * short_cut, f) if short_cut else 0
        return shifted(taps, 2 * f, f) + skip + shifted(taps, 2 * f, 2 * f)

    def stream(taps, down, up):
        # Three resolutions; on the way up, two of them have one block more.
        stages = 3 * blocks * block(taps, down) + (3 * blocks + 2) * block(taps, up)
        return stages + 4 * shifted(taps, f, f)  # two convolutions down, two up

    # The vertical stream looks 2x3 and has short cuts up; the horizontal one looks 2x2, with the
    # vertical stream as short cut down, and both up.
    both = stream(6, 0, f) + stream(4, f, 2 * f)
    enter = shifted(6, 4, f) + shifted(3, 4, f) + shifted(2, 4, f)  # with the channel of ones
    leave = pointwise(f, 10 * (1 + 3 + 3 + 3))
    variables = shapes_of(pixelcnn((32, 32, 3)).init, (32, 32, 3))
    assert size(variables["params"]) == both + enter + leave
    assert size(variables["params"]) == pytest.approx(13.46e6, rel=0.01)


def convolutions(channels, kernels, normalized):
    """Parameters of a chain of convolutions: with BatchNorm scale and shift, else a bias."""
    pairs = zip(channels, channels[1:], kernels, normalized, strict=False)
    return sum(k * k * a * b + (1 + norm) * b for a, b, k, norm in pairs)


THREE = 7 * [3] + [1, 1]
SPRINGENBERG = [3, 96, 96, 96, 192, 192, 192, 192, 192]
STAGES = 7 * [16] + 6 * [32] + 6 * [64]
ARCHITECTURES = {
    # Channels, kernels, sizes of the features, and parameters beside the chain's.
    "all_cnn_c": ([*SPRINGENBERG, 10], THREE, [32, 32, 32, 16, 16, 16, 8, 6, 6, 6], 0),
    "convpool_cnn_c": ([*SPRINGENBERG, 10], THREE, [32, 32, 32, 16, 16, 16, 8, 6, 6, 6], 0),
    "all_conv_13": (
        [3, 128, 128, 128, 256, 256, 256, 512, 256, 128],
        THREE,
        [32, 32, 32, 16, 16, 16, 8, 6, 6, 6],
        128 * 10 + 10,
    ),
    # 1x1 shortcuts of two stages without a bias, and the dense layer.
    "resnet": ([3, *STAGES], 19 * [3], [32, *7 * [32], *6 * [16], *6 * [8]], 0),
}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_of_the_rendering_model(name, batch_norm):
    channels, kernels, sizes, others = ARCHITECTURES[name]
    model = getattr(nrm_architectures, name)((32, 32, 3), batch_norm=batch_norm)
    assert model.shapes == tuple((s, s, c) for s, c in zip(sizes, channels, strict=True))
    normalized = [batch_norm] * len(kernels)
    if others == 0 and name != "resnet":
        normalized[-1] = False  # the layer that has a channel a class
    if name == "resnet":
        others = 16 * 32 + 32 * 64 + 2 * (32 + 64) * batch_norm + 64 * 10 + 10
    expected = convolutions(channels, kernels, normalized) + others
    assert size(shapes_of(model.init, (32, 32, 3))["params"]) == expected


# ---------------------------------------------------------------------------- the presets "paper"


def first_step(optimizer, gradient=2.0):
    """How far the first update moves a parameter; of Adam, that is its learning rate."""
    parameter = {"w": np.float32(0)}
    updates, _ = optimizer.update({"w": np.float32(gradient)}, optimizer.init(parameter), parameter)
    return -float(updates["w"])


EPOCHS = 100
BATCH_NORM_PAPER = {
    # Trusted training images; width and depth of RealNVP (Appendix C.1).
    "bn_fashion_mnist": (bn_fashion_mnist, 60_000, (32, 4)),
    "bn_cifar": (bn_cifar, 50_000, (64, 8)),
}


@pytest.mark.parametrize("name", BATCH_NORM_PAPER)
@pytest.mark.parametrize("model", ["realnvp", "vae", "pixelcnn"])
def test_presets_of_the_batch_norm_paper(name, model):
    """Section 6, Appendix C.1: b = 64 in training and scoring, Adam at its default, M = 5."""
    module, images, realnvp_size = BATCH_NORM_PAPER[name]
    preset = module.PRESETS[model, "paper"]
    recipe = preset.recipe
    sizes = {"realnvp": realnvp_size, "vae": (32, None), "pixelcnn": (80, 5)}
    assert (recipe.model, recipe.width, recipe.depth) == (model, *sizes[model])
    assert recipe.batch_size == preset.sizes.batch_size == 64
    assert recipe.learning_rate == 1e-3 and recipe.warmup is None
    assert first_step(recipe.make_optimizer()) == pytest.approx(1e-3, rel=1e-4)
    assert recipe.options == ({"dropout": 0.5} if model == "pixelcnn" else {})
    assert recipe.members == 1 and recipe.statistics_images is None
    # The paper gives no length: 100 epochs of whole batches.
    assert recipe.steps == EPOCHS * (images // 64)
    assert preset.ensemble is not None
    assert preset.ensemble.members == 5
    assert (preset.ensemble.width, preset.ensemble.steps) == (recipe.width, recipe.steps)


def test_the_recipes_build_the_models_that_they_name():
    for module, shape in ((bn_fashion_mnist, (28, 28, 1)), (bn_cifar, (32, 32, 3))):
        for (model, preset), made in module.PRESETS.items():
            if (model, preset) == ("realnvp", "paper"):
                width, depth = (32, 4) if shape[2] == 1 else (64, 8)
                expected = realnvp(shape, width=width, depth=depth)
                assert shapes_of(made.recipe.build(shape).init, shape) == shapes_of(
                    expected.init, shape
                )


def test_ratios_of_the_batch_norm_paper():
    assert (R1, R2) == (0.1, 0.9)  # Section 6
    assert SWEEP_R2 == (0.15, 0.3, 0.5, 0.9)  # Table 5


def test_presets_of_the_other_experiments():
    # Glow (Kingma and Dhariwal 2018, CIFAR-10), beside the VAE of the BatchNorm paper.
    recipe = glow_cifar.GLOW["paper"]
    assert (recipe.model, recipe.width, recipe.depth, recipe.batch_size) == ("glow", 512, 32, 64)
    assert recipe.learning_rate == 1e-3 and recipe.steps == EPOCHS * (50_000 // 64)
    count = size(shapes_of(recipe.build((32, 32, 3)).init, (32, 32, 3)))
    assert count == 44_052_816  # counted by hand in test_glow.py
    assert glow_cifar.VAE["paper"] == bn_cifar.PRESETS["vae", "paper"].recipe

    # The NRM paper's network; 5,000 images of each set; 200 epochs of batches of 128.
    preset = nrm_cifar.PRESETS["paper"]
    assert (preset.recipe.model, preset.recipe.width) == ("all_cnn_c", 96)
    assert (preset.recipe.batch_size, preset.recipe.augment) == (128, True)
    assert preset.recipe.steps == pytest.approx(200 * 50_000 / 128, rel=1e-3)
    assert preset.recipe.loss_weights == LossWeights(1, 10, 40, 3, 0)
    assert (preset.images, preset.null_images) == (5000, 5000)

    # Appendix B fools a RealNVP of CIFAR-10 by one of SVHN, a PixelCNN++ of Fashion-MNIST by MNIST.
    assert fooling.LENDERS["realnvp"] is bn_cifar.PRESETS
    assert fooling.LENDERS["pixelcnn"] is bn_fashion_mnist.PRESETS
    assert fooling.OTHERS == {"realnvp": "svhn_cropped", "pixelcnn": "mnist"}
    assert fooling.SIZES["paper"].batch_size == 64

    # Figure 1's flow is that of Fashion-MNIST; 100 epochs, and 10 where images are shrunk.
    _, shrunk, whole = toy.PRESETS["paper"]
    for detection, epochs in ((shrunk, 10), (whole, EPOCHS)):
        recipe = detection.recipe
        assert (recipe.model, recipe.width, recipe.depth) == ("realnvp", 32, 4)
        assert recipe.steps == epochs * (60_000 // 64) and detection.batch_size == 64


# ----------------------------------------------------------------------------------- the mutations


def test_every_mutation_still_applies():
    """The table has forty wrong lines that the tests ought to notice: python -m tests.mutations."""
    assert len(MUTATIONS) == len({mutation.what for mutation in MUTATIONS}) == 40
    for mutation in MUTATIONS:
        ast.parse(mutated(mutation, ROOT))
        for test in arguments(mutation):
            assert not test.endswith(".py") or (ROOT / test).exists(), test
