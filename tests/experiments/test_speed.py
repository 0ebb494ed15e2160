"""The benchmark's peers are the models, and its command runs."""

# pyright: reportMissingImports=false

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import lab
from experiments.benchmarks import peers, report, speed, steps, timing
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


class Machine:
    """A clock that programs move on, and the load of other processes beside them."""

    def __init__(self, monkeypatch):
        self.now, self.foreign = 0.0, 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.now, sleep=lambda _: None)
        monkeypatch.setattr(timing, "time", clock)
        monkeypatch.setattr(timing, "_foreign_seconds", lambda _: self.foreign)

    def program(self, *seconds, foreign=()):
        """A program whose calls take these seconds, beside these core-seconds of others."""
        left, beside = iter(seconds), iter(foreign)

        def run(count):
            for _ in range(count):
                self.now += next(left)
                self.foreign += next(beside, 0.0)

        return run


def test_rounds_are_medians_of_programs_in_turn(monkeypatch, capsys):
    machine = Machine(monkeypatch)
    programs = {
        "jaxood": machine.program(9, 4, 2, 8, 3),
        "NCHW": machine.program(9, 4, 7, 9, 68),
        "channels-last": machine.program(9, 4, 8, 6, 6),
    }
    times = timing.in_turn(programs, timing.Amount(3, 0.1, 60))
    assert times.dropped == 0 and not times.loaded
    [line] = report.compare("model", times, {"PyTorch": ["NCHW", "channels-last"]})
    assert line.against == "PyTorch, channels-last" and line.ratio == 0.5
    assert line.range == (0.25, 8 / 6)
    assert "0.50  0.25 to 1.33" in capsys.readouterr().out


def test_a_sample_repeats_what_is_short(monkeypatch):
    machine = Machine(monkeypatch)
    times = timing.in_turn({"a": machine.program(*[0.25] * 6)}, timing.Amount(2, 0.5, 60))
    assert times.seconds == {"a": [0.25, 0.25]}


def test_rounds_with_foreign_load_are_repeated(monkeypatch):
    machine = Machine(monkeypatch)
    alone = timing.in_turn(
        {"a": machine.program(1, 1, 50, 3, 2, 1, foreign=(0, 0, 40, 0, 0, 0))},
        timing.Amount(3, 0.1, 60),
    )
    assert alone == ({"a": [3, 2, 1]}, 1, False)
    cores = timing.os.cpu_count() or 1
    crowded = timing.in_turn(
        {"a": machine.program(*[1] * 8, foreign=[cores] * 8)}, timing.Amount(3, 0.1, 60)
    )
    assert crowded == ({"a": [1] * 6}, 0, True)


def test_the_command_compares_with_other_ways_in_jax_without_pytorch(monkeypatch, capsys):
    monkeypatch.setattr(peers, "installed", lambda: False)
    settings = {"preset": "smoke", "rounds": 1, "sample": 0.0}
    lines = speed.main(
        speed.Config(only=("nrm_16", "score", "delta"), parts=("evaluation",), **settings)
    )
    assert [line.against for line in lines] == ["loop in JAX", "rendering", "rendering, all scores"]
    assert capsys.readouterr().out.count('pip install "jaxood[peer]"') == 3
    only = {"only": ("nrm_16",), "parts": ("evaluation",)}
    [line] = speed.main(speed.Config(**only, **settings, against="xla"))
    assert line.against == "xla" and line.ours > 0 < line.theirs
    for part in ("training", "evaluation"):
        only = {"only": ("realnvp",), "parts": (part,)}
        [line] = speed.main(speed.Config(**only, **settings, against="nn.Conv"))
        assert line.against == "nn.Conv" and line.ours > 0 < line.theirs


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"only": ("resnet",)}, "--only resnet: there are realnvp, .*, score"),
        ({"only": ("vae",), "against": "nn.Conv"}, "--against nn.Conv is for RealNVP"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(flags, message):
    with pytest.raises(lab.UsageError, match=message):
        speed.main(speed.Config(**flags))
