import functools

import jax
import numpy as np
import optax
import pytest
from jax.interpreters import partial_eval

from jaxood import nrm, train
from jaxood.models.nrm.losses import reference_path, terms
from jaxood.nn.batch_stats import batch_moments, move

SHAPE, CLASSES = (4, 4, 2), 3
LABELS = np.array([2, -1, 0, -1])


@functools.cache
def model():
    layers = (nrm.Layer(3, pool=(2, 2)), nrm.Layer(4, kernel=1), nrm.Layer(4, skip=1))
    return nrm.nrm(SHAPE, layers, classes=CLASSES, batch_norm=True)


@functools.cache
def variables():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model().init, jax.random.key(0), np.zeros((1, *SHAPE)))

    def leaf(path, value):
        noise = rng.normal(size=value.shape)
        return np.exp(noise) if path[-1].key == "var" else noise

    made = jax.tree_util.tree_map_with_path(leaf, shapes)
    # The likeliest class of all images is the last one, which is also that of the label -1.
    dense = made["params"]["dense"]
    return made | {
        "params": made["params"] | {"dense": jax.tree.map(lambda a: np.roll(a, -1, -1), dense)}
    }


def images(n=4):
    return np.random.default_rng(1).normal(size=(n, *SHAPE))


@functools.cache
def terms_program():
    return jax.jit(
        lambda variables, x, labels, temperature: terms(
            model(), variables, x, labels, temperature=temperature
        )
    )


@functools.cache
def rendering_program():
    """Compute the parts of the terms without `explain`, BatchNorm folded at the batch's moments."""

    @jax.jit
    def render(variables, x):
        logits, _, latents = model().encode(variables, x, train=True)
        moments = batch_moments(model(), variables, x)
        folded = nrm.fold({**variables, "batch_stats": moments})
        y = jax.numpy.where(LABELS >= 0, LABELS, logits.argmax(1))
        zero = model().encode(folded, np.zeros((1, *SHAPE)))
        ones = np.ones((1, *model().shapes[-1]))
        reference = model().render(folded, None, zero[2], h=ones)
        own = (logits, latents.switches, model().render(folded, y, latents))
        return own, (zero[1], reference), folded.biases, move(variables["batch_stats"], moments)

    return render


@pytest.mark.parametrize("temperature", [1.0, 30.0])
def test_terms_are_what_they_are_said_to_be(temperature, float64):
    x = images()
    (logits, switches, h), (zero, reference), bias, running = rendering_program()(variables(), x)
    values, batch_stats = terms_program()(variables(), x, LABELS, temperature)
    assert np.all(logits.argmax(1) == 1)  # no label, and not the last class

    def close(name, expected):
        assert values[name].shape == (4,)
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(values[name], expected, rtol=1e-10, err_msg=name)

    probability = np.exp(logits / temperature)
    probability /= probability.sum(1, keepdims=True)
    close("cross_entropy", [-np.log(probability[0, 2]), 0, -np.log(probability[2, 0]), 0])
    close("reconstruction", ((x - h[0]) ** 2).mean((1, 2, 3)))
    close("negativity", sum((np.minimum(a, 0) ** 2).mean((1, 2, 3)) for a in h[1:]))
    path = [b * s * a for b, s, a in zip(bias, switches, h[1:], strict=True)]
    close("latent", -sum(p.mean((1, 2, 3)) for p in path))
    # The reference: the pixels that are on in the zero image.
    best = [b * (g > 0) * a for b, g, a in zip(bias, zero[1:], reference[1:], strict=True)]
    assert all(np.abs(b).max() > 0 for b in best)
    close("path", sum(np.abs(p - b).mean((1, 2, 3)) for p, b in zip(path, best, strict=True)))
    jax.tree.map(np.testing.assert_array_equal, batch_stats, running)


def test_the_loss_is_the_weighted_sum_of_batch_means(float64):
    x, key = images(), jax.random.key(0)
    weights = nrm.LossWeights(2.0, 3.0, 5.0, 7.0, 11.0)
    loss_of = jax.jit(nrm.loss(model(), weights, temperature=30.0))
    for labels, count in ((LABELS, 2), (np.full(4, -1), 1)):
        values, running = terms_program()(variables(), x, labels, 30.0)
        means = {name: np.mean(value) for name, value in values.items()}
        # That of the labelled images alone; of no image, where none has a label.
        means["cross_entropy"] = np.sum(values["cross_entropy"]) / count
        assert (means["cross_entropy"] > 0) == (labels is LABELS)
        loss, batch_stats = loss_of(variables(), (x, labels), key)
        expected = sum(weight * means[name] for name, weight in weights._asdict().items())
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-12), batch_stats, running
        )


def test_a_weight_of_zero_switches_a_term_off():
    """A classifier alone renders nothing, and one without reconstruction renders no pixels."""

    def adjoint_convolutions(weights):
        loss = nrm.loss(model(), weights)
        args = (variables(), (images(), LABELS), jax.random.key(0))
        program = jax.make_jaxpr(lambda *args: loss(*args)[0])(*args)
        needed, _ = partial_eval.dce_jaxpr(program.jaxpr, [True])
        return str(needed).count("input_gradient[")

    off = nrm.LossWeights(0.0, 0.0, 0.0, 0.0, 0.0)
    assert adjoint_convolutions(off._replace(cross_entropy=1.0)) == 0
    # Three layers and a skip connection; the reference path has its own.
    every = adjoint_convolutions(off._replace(reconstruction=1.0))
    above_pixels = adjoint_convolutions(off._replace(negativity=1.0))
    assert 0 < above_pixels < every
    assert adjoint_convolutions(off._replace(latent=1.0)) == above_pixels
    assert adjoint_convolutions(off._replace(path=1.0)) == 2 * above_pixels


def test_gradients_flow_through_rendering_and_batch_statistics(float64):
    """Along a random direction, against a central difference, everything on."""
    loss = nrm.loss(model(), nrm.LossWeights(1.0, 2.0, 3.0, 4.0, 5.0), temperature=3.0)
    params, step = variables()["params"], 1e-6
    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda a: rng.normal(size=a.shape), params)

    @jax.jit
    def value_and_slope(params):
        def of_params(params):
            batch = (images(), LABELS)
            return loss(variables() | {"params": params}, batch, jax.random.key(0))[0]

        value, gradient = jax.value_and_grad(of_params)(params)
        return value, optax.tree.vdot(gradient, direction)

    def at(distance):
        return value_and_slope(jax.tree.map(lambda a, d: a + distance * d, params, direction))

    difference = (at(step)[0] - at(-step)[0]) / (2 * step)
    np.testing.assert_allclose(at(0.0)[1], difference, rtol=1e-6)


def test_the_reference_path_is_one_image_whatever_the_batch(float64):
    reference = jax.jit(lambda v: reference_path(model(), nrm.fold(v)))(variables())
    assert [r.shape for r in reference] == [(1, *shape) for shape in model().shapes[1:]]


def test_training_takes_partly_labelled_images():
    tiny = nrm.nrm((4, 4, 1), [nrm.Layer(4, pool=(2, 2))], classes=2)
    rng = np.random.default_rng(0)
    labels = np.arange(16) % 2
    x = (100 + 100 * labels[:, None, None, None] + rng.integers(0, 50, (16, 4, 4, 1))).astype(
        np.uint8
    )
    data = (x, np.where(np.arange(16) < 8, labels, -1))
    start = jax.jit(tiny.init)(jax.random.key(0), x)
    calls = []

    def augment(key, x):
        calls.append(key)
        return x[:, :, ::-1]

    loss = nrm.loss(tiny, nrm.LossWeights(path=0.1), augment=augment)
    state = train.fit(
        loss,
        start,
        data,
        steps=60,
        batch_size=8,
        optimizer=optax.adam(0.05),
        show_progress=False,
    )
    assert calls
    assert state.losses[-5:].mean() < 0.5 * state.losses[:5].mean()
    np.testing.assert_array_equal(tiny.encode(state.variables, x)[0].argmax(1), labels)
