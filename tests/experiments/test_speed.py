"""The benchmark's peers are the models, and its command runs."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import steps
from experiments.benchmarks.cases import SMOKE
from jaxood import nrm
from jaxood.density import draw
from jaxood.scores.nrm import latent_log_prob
from tests.helpers import initial, perturb


@pytest.fixture(scope="module")
def programs():
    """PyTorch's side of the benchmark, where PyTorch is installed."""
    pytest.importorskip("torch")
    from experiments.benchmarks.peers import programs

    return programs


def prepared(name):
    """A small model of the table without dropout, its variables, and a batch of images."""
    case = SMOKE[name]
    if name == "pixelcnn":
        case = case._replace(sizes={**case.sizes, "dropout": 0.0})
    model, x = steps.model_of(case), case.images(0)[: case.batch_size]
    return case, model, perturb(initial(model.init, x)), x


@pytest.mark.parametrize("name", ["realnvp_cifar", "vae", "pixelcnn", "glow"])
def test_peers_have_the_parameters_and_likelihoods_of_the_models(programs, name):
    import torch

    case, model, variables, x = prepared(name)
    log_prob = jax.jit(model.log_prob, static_argnames="train")
    key = jax.random.key(1)
    peer = programs.build(case, variables)
    parameters = sum(p.size for p in jax.tree.leaves(variables["params"]))
    assert sum(p.numel() for p in peer.parameters()) == parameters
    noise = None
    if name == "vae":
        noise = torch.tensor(np.array(draw(jax.random.normal, key, (len(x), peer.latent))))
    elif name != "pixelcnn":
        noise = np.array(draw(jax.random.uniform, key, x.shape))
        noise = torch.tensor(noise).permute(0, 3, 1, 2)
    for train in (False, True):
        found = log_prob(variables, x, train=train, key=key)
        for layout in programs.FORMATS:
            peer = programs.build(case, variables, layout).train(train)
            images = programs.images_of(case, 0, layout)[: case.batch_size]
            with torch.no_grad():
                theirs = peer.log_prob(images, noise).numpy()
            np.testing.assert_allclose(theirs, found, rtol=1e-4, err_msg=f"train={train}")


def test_the_classifier_has_the_logits_and_the_latents_of_the_model(programs):
    import torch

    case, model, variables, x = prepared("nrm_16")
    peer = programs.build(case, variables)
    images = programs.images_of(case, 0, "NCHW")[: len(x)]
    logits, _, _ = model.encode(variables, x)
    np.testing.assert_allclose(peer(images).detach().numpy(), logits, rtol=1e-4, atol=1e-5)
    found = latent_log_prob(model, variables, x).log_prob
    np.testing.assert_allclose(peer.latent_log_prob(images).numpy(), found, rtol=1e-4)
    labels = case.labels(0)[: len(x)]
    loss, _ = nrm.loss(model, nrm.LossWeights(1, 0, 0, 0, 0))(
        variables, (x, labels), jax.random.key(0)
    )
    theirs = peer.loss(images, torch.from_numpy(labels))
    np.testing.assert_allclose(theirs.item(), loss, rtol=1e-5)
