import functools
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxood import nrm
from jaxood.density import Spec, build
from jaxood.nn.batch_stats import batch_moments

WIDTH, CLASSES = 3, 4


def conv(channels, kernel=3, stride=1, padding="SAME", pool=None, skip=0):
    return (channels, kernel, stride, padding, pool, skip)


def springenberg(**down):
    """Tables 1 and 2 of the source; what goes down is a strided convolution or a pool."""
    fine, coarse = [conv(3), conv(3), conv(3, **down)], [conv(6), conv(6), conv(6, **down)]
    return [*fine, *coarse, conv(6, padding="VALID"), conv(6, 1), conv(CLASSES, 1)]


LAYERS = {
    "all_cnn_c": springenberg(stride=2),
    "convpool_cnn_c": springenberg(pool=(3, 2)),
    "all_conv_13": [
        *(conv(3), conv(3), conv(3, pool=(2, 2))),
        *(conv(6), conv(6), conv(6, pool=(2, 2))),
        *(conv(12, padding="VALID"), conv(6, 1), conv(3, 1)),
    ],
    "resnet": [
        *(conv(3), conv(3), conv(3, skip=1)),
        *(conv(6, stride=2), conv(6, skip=2)),
        *(conv(12, stride=2), conv(12, skip=2)),
    ],
}
SHAPE = (9, 10, 2)


@functools.cache
def network(name, batch_norm=True):
    options = {"depth": 1} if name == "resnet" else {}
    make = getattr(nrm, name)
    return make(SHAPE, classes=CLASSES, width=WIDTH, batch_norm=batch_norm, **options)


def away_from_start(model, seed=0):
    """Float64 variables with everything random, also signs of the BatchNorm scales."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *model.shapes[0])))

    def leaf(path, value):
        noise = rng.normal(size=value.shape)
        if path[-1].key == "kernel":
            return noise * np.sqrt(2 / np.prod(value.shape[:-1]))
        return {"var": np.exp(noise), "bias": 0.5 * noise}.get(path[-1].key, noise)

    variables = jax.tree_util.tree_map_with_path(leaf, shapes)
    if "dense" not in variables["params"]:
        # Logits that are averages of a ReLU: none of them dark.
        variables["params"][f"layer_{len(model.shapes) - 1}"]["bias"] += 3
    return variables


def images(n=2, seed=1):
    return np.random.default_rng(seed).normal(size=(n, *SHAPE))


@functools.cache
def program(name):
    model = network(name)

    @jax.jit
    def everything(variables, x, y):
        def logit(variables, x):
            logits, features, latents = model.encode(variables, x)
            return jnp.take_along_axis(logits, y[:, None], 1)[:, 0], (logits, features, latents)

        folded = nrm.fold(variables)
        bias = folded.biases
        at_label, pullback, (normalized, _, _) = jax.vjp(
            lambda x: logit(variables, x), x, has_aux=True
        )
        _, along_bias, (logits, features, latents) = jax.jvp(
            lambda b: logit(folded._replace(biases=b), x), (bias,), (bias,), has_aux=True
        )
        h = model.render(variables, y, latents)
        return {
            "folded": folded,
            "logits": logits,
            "normalized": normalized,
            "features": features,
            "latents": latents,
            "h": h,
            "gradient": pullback(jnp.ones_like(at_label))[0],
            "along_bias": along_bias,
            "path": sum(path.sum((1, 2, 3)) for path in nrm.paths(folded, latents, h)),
            "at_label": at_label,
        }

    return everything


def evaluate(name, dtype=np.float64):
    variables = jax.tree.map(lambda a: a.astype(dtype), away_from_start(network(name)))
    x, y = images().astype(dtype), np.array([0, 2])
    return variables, x, y, program(name)(variables, x, y)


# ----------------------------------------------------------------------------------- identities


def assert_identities(name, dtype, tolerance):
    _, x, y, result = evaluate(name, dtype)
    h, path = result["h"], result["path"]
    assert h[0].dtype == path.dtype == dtype
    assert min(np.abs(h[0]).max((1, 2, 3))) > 1e-3
    assert np.abs(path).min() > 1e-2
    dense = result["folded"].dense
    own_bias = 0 if dense is None else dense.bias[y]
    explained = own_bias + (x * h[0]).sum((1, 2, 3)) + path
    for actual, expected in (
        (h[0], result["gradient"]),
        (path, result["along_bias"]),
        (explained, result["at_label"]),
        (result["logits"], result["normalized"]),
    ):
        scale = max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", LAYERS)
def test_rendering_identities_with_batch_norm_folded(name, float64):
    assert_identities(name, np.float64, 1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_rendering_identities_in_single_precision(name):
    assert_identities(name, np.float32, 1e-4)


def reference_layer(layer, kernel, bias, skip_kernel, below, source):
    """A layer in XLA's own operations, in the order of the paper: the ReLU before the pool."""
    _, _, stride, padding, pool, skip = layer
    convolve = functools.partial(
        lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = convolve(below, kernel, (stride, stride), padding) + bias
    if skip:
        y += source if skip_kernel is None else convolve(source, skip_kernel, (skip, skip), "SAME")
    y = nn.relu(y)
    return nn.max_pool(y, (pool[0],) * 2, (pool[1],) * 2, "SAME") if pool else y


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_and_each_rendering_step_against_xla(name, float64):
    _, _, _, result = evaluate(name)
    folded, g, h = result["folded"], result["features"], result["h"]
    layers = LAYERS[name]
    assert len(g) == len(h) == 1 + len(layers)
    assert network(name).shapes == tuple(feature.shape[1:] for feature in g)

    @jax.jit
    def reference(folded, g, h):
        values, steps = [], [0.0] * len(g)
        weights = zip(folded.kernels, folded.biases, folded.skips, strict=True)
        for number, (layer, own) in enumerate(zip(layers, weights, strict=True), 1):
            sources = (g[number - 1], g[max(0, number - 2)])
            step = functools.partial(reference_layer, layer, *own)
            value, vjp = jax.vjp(step, *sources)
            values.append(value)
            below, source = vjp(h[number])
            steps[number - 1] += below
            if layer[-1]:
                steps[number - 2] += source
        return values, steps[:-1]

    values, steps = reference(folded, g, h)
    chex.assert_trees_all_close(values, list(g[1:]), rtol=0, atol=1e-12)
    for step, expected in zip(h[:-1], steps, strict=True):
        np.testing.assert_allclose(step, expected, rtol=0, atol=1e-6 * np.abs(expected).max())

    # The start: the class's weights, spread by the adjoint of the average over space.
    weights, bias = folded.dense or (np.eye(CLASSES), 0)
    means = np.mean(g[-1], (1, 2)) @ weights + bias
    np.testing.assert_allclose(result["logits"], means, rtol=1e-12)
    top = np.stack([weights[:, 0], weights[:, 2]])[:, None, None] / np.prod(g[-1].shape[1:3])
    np.testing.assert_allclose(h[-1], np.broadcast_to(top, g[-1].shape), rtol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_latents_are_what_the_layers_chose(name, float64):
    _, _, _, result = evaluate(name)
    for layer, g, switch, winner in zip(
        LAYERS[name], result["features"][1:], *result["latents"], strict=True
    ):
        assert switch.dtype == bool
        np.testing.assert_array_equal(switch, g > 0)
        assert 0 < switch.mean()
        if layer[4] is None:
            assert winner is None
        else:
            assert winner.dtype == np.uint8
            assert winner.shape == g.shape
            assert set(np.unique(winner)) == set(range(layer[4][0] ** 2))


@pytest.mark.parametrize("name", LAYERS)
def test_a_specification_makes_the_same_network_again(name):
    model = network(name)
    assert model.spec is not None
    spec = Spec.from_json(json.loads(json.dumps(model.spec.to_json())))
    assert spec == model.spec
    again = build(spec)
    assert again.spec == spec
    assert again.shapes == model.shapes
    x = np.zeros((1, *SHAPE))
    assert jax.eval_shape(again.init, jax.random.key(0), x) == jax.eval_shape(
        model.init, jax.random.key(0), x
    )


# -------------------------------------------------------------------------- starts and BatchNorm

MIXED = (
    nrm.Layer(3, pool=(3, 2)),
    nrm.Layer(4, stride=2),
    nrm.Layer(4),
    nrm.Layer(5, skip=1),
)
"""Everything at once, and quick to compile."""


@functools.cache
def mixed():
    return nrm.nrm(SHAPE, MIXED, classes=CLASSES, batch_norm=True)


def test_rendering_starts_anywhere_but_inside_a_block(float64):
    model, x, y = mixed(), images(), np.array([1, 3])
    variables = away_from_start(model)

    @jax.jit
    def run(variables, x, y):
        latents = model.encode(variables, x)[2]
        h = model.render(variables, y, latents)
        starts = {
            layer: model.render(variables, None, latents, from_layer=layer, h=h[layer])
            for layer in (0, 1, 2, 4)
        }
        return latents, h, starts

    latents, h, starts = run(variables, x, y)
    for layer, rest in starts.items():
        assert len(rest) == layer + 1
        chex.assert_trees_all_close(rest, h[: layer + 1], rtol=1e-12)
    with pytest.raises(ValueError, match="skip connection jumps over layer 3"):
        model.render(variables, None, latents, from_layer=3, h=h[3])
    with pytest.raises(ValueError, match="rendering from layer 2 starts from h"):
        model.render(variables, y, latents, from_layer=2)


def test_networks_without_batch_norm_have_the_weights_that_folding_leaves():
    for name in LAYERS:
        plain, normalized = (
            jax.eval_shape(network(name, norm).init, jax.random.key(0), np.zeros((1, *SHAPE)))
            for norm in (False, True)
        )
        assert normalized["batch_stats"] and "batch_stats" not in plain
        folded = jax.eval_shape(nrm.fold, normalized)
        chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(nrm.fold, plain), folded)
        # A bias a layer, and with them every number that the plain network has.
        sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (plain, folded)]
        assert sizes[0] == sizes[1]
        assert nrm.fold(folded) is folded


def test_training_mode_is_the_network_folded_at_the_moments_of_the_batch(float64):
    model, x = mixed(), images(3)
    variables = away_from_start(model)

    @jax.jit
    def run(variables, x):
        found = nrm.explain(model, variables, x, train=True)
        own = model.encode(variables, x, train=True, mutable=["batch_stats"])
        moments = batch_moments(model, variables, x)
        again, evaluation = model.encode(found.folded, x), model.encode(variables, x)[0]
        return found, evaluation, own, moments, again

    found, evaluation, ((logits, features, latents), running), moments, again = run(variables, x)
    chex.assert_trees_all_close(
        (found.logits, found.features, found.latents, found.batch_stats),
        (logits, features, latents, running),
        rtol=1e-12,
    )
    chex.assert_trees_all_close(logits, again[0], rtol=1e-10)
    chex.assert_trees_all_close(again[1], features, rtol=1e-10, atol=1e-12)
    chex.assert_trees_all_close(
        found.folded, nrm.fold({**variables, "batch_stats": moments}), rtol=1e-10, atol=1e-12
    )
    assert np.abs(logits - evaluation).min() > 1e-3


def test_log_prob_is_theorem_2(float64):
    """The model is built again from its specification, in which layers are plain tuples."""
    spec = mixed().spec
    assert spec is not None
    model, x = build(Spec.from_json(spec.to_json())), images(3)
    variables = away_from_start(model)

    @jax.jit
    def run(variables, x):
        logits, _, latents = model.encode(variables, x)
        h = model.render(variables, logits.argmax(1), latents)
        return logits, h, model.log_prob(variables, x)

    logits, h, log_prob = run(variables, x)
    dense = variables["params"]["dense"]["bias"]
    # By the third identity, without the paths.
    path = logits.max(1) - dense[logits.argmax(1)] - (x * h[0]).sum((1, 2, 3))
    expected = path - ((x - h[0]) ** 2).sum((1, 2, 3)) / 2
    np.testing.assert_allclose(log_prob, expected, rtol=1e-10)


# -------------------------------------------------------------------------------------- arguments


def test_images_are_scaled_levels_or_taken_as_they_are():
    model = mixed()
    variables = jax.tree.map(lambda a: a.astype(np.float32), away_from_start(model))
    levels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
    encode = jax.jit(model.encode)
    logits, features, _ = encode(variables, levels)
    assert features[0].min() == -1
    assert features[0].max() == 1
    scaled = levels.astype(np.float32) / np.float32(127.5) - 1
    np.testing.assert_allclose(encode(variables, scaled)[0], logits, rtol=1e-5)
    with pytest.raises(TypeError, match="images must be uint8, or floating and scaled, got int32"):
        model.encode(variables, levels.astype(np.int32))
    with pytest.raises(ValueError, match=r"images \(9, 10, 2\), not \(10, 9, 2\)"):
        model.encode(variables, np.swapaxes(levels, 1, 2))


@pytest.mark.parametrize("name", ["all_cnn_c", "convpool_cnn_c", "all_conv_13"])
def test_images_too_small_for_a_network_are_refused(name):
    with pytest.raises(ValueError, match="8x9 images are too small for this network"):
        getattr(nrm, name)((8, 9, 3))


def test_sizes_of_the_sources():
    """Springenberg et al. 2014: 6x6 maps before the average, and the widths of Tables 1 and 2."""
    for name in ("all_cnn_c", "convpool_cnn_c"):
        shapes = getattr(nrm, name)((32, 32, 3)).shapes
        assert [s[2] for s in shapes] == [3, 96, 96, 96, 192, 192, 192, 192, 192, 10]
        assert shapes[7:] == ((6, 6, 192), (6, 6, 192), (6, 6, 10))
    shapes = nrm.all_conv_13((32, 32, 3)).shapes
    assert [s[2] for s in shapes] == [3, 128, 128, 128, 256, 256, 256, 512, 256, 128]
    assert [s[0] for s in shapes] == [32, 32, 32, 16, 16, 16, 8, 6, 6, 6]
    assert len(nrm.resnet((32, 32, 3)).shapes) == 1 + 19


@pytest.mark.parametrize("classes", [CLASSES, None])
def test_a_common_template_moves_all_logits_alike(classes):
    """It drops out of the softmax, and every class is rendered from it."""
    layers = [nrm.Layer(8), nrm.Layer(CLASSES)]
    plain, common = (nrm.nrm((4, 4, 3), layers, classes=classes, template=t) for t in (0.0, 0.5))
    x = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    variables = [model.init(jax.random.key(0), x) for model in (plain, common)]
    last = "layer_2" if classes is None else "dense"
    kernels = [v["params"][last]["kernel"] for v in variables]
    np.testing.assert_allclose(kernels[1] - kernels[0], 0.5, atol=1e-6)
    if classes is not None:
        logits = [m.encode(v, x)[0] for m, v in zip((plain, common), variables, strict=True)]
        moved = np.asarray(logits[1] - logits[0])
        np.testing.assert_allclose(moved, moved[:, :1].repeat(CLASSES, 1), atol=1e-5)
        assert moved.min() > 0.01
