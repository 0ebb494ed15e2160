"""The training loop resumes to the bit, keeps the last good state, and draws every image once."""

import functools
import random
import signal
import subprocess
import sys
import time

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxood import progress, train
from jaxood.density import DensityModel, dequantize
from jaxood.nn import batch_norm
from jaxood.train import checkpoint
from tests.helpers import ROOT, command, initial


class Net(nn.Module):
    """One layer with all that a training has to keep: parameters and running statistics."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(4)(x)
        x = batch_norm.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(1)(x)


def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
    y = dequantize(key, x) / 256
    z, updates = Net().apply(variables, y, train=train, mutable=["batch_stats"])
    result = -0.5 * ((z - y) ** 2).sum((1, 2, 3))
    return (result, updates["batch_stats"]) if mutable else result


TINY = DensityModel(
    lambda key, x: Net().init(key, jnp.zeros((1, *x.shape[1:])), train=False),
    log_prob,
    lambda *_, **__: jnp.zeros(0),
)
# All tests share these objects, so that the training loop compiles once.
LOSS, ADAM = train.neg_log_prob_loss(TINY), optax.adam(1e-3)
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
STEPS = 60


@functools.cache
def tiny_variables():
    return initial(TINY.init, IMAGES)


def fit_tiny(directory=None, seed=0):
    return train.fit(
        LOSS,
        tiny_variables(),
        IMAGES,
        steps=STEPS,
        batch_size=8,
        optimizer=ADAM,
        average_decay=0.9,
        seed=seed,
        directory=directory,
        save_every=0.0,
        show_progress=False,
    )


@pytest.fixture(scope="module")
def unbroken():
    return fit_tiny()


# ------------------------------------------------------------------------------------- stopping


class Stopped(Exception):
    pass


def bar_that(act):
    """A progress bar that calls ``act(steps done)`` after each refresh instead of drawing."""

    class Bar:
        def __init__(self, description, total, *, done=0, show=True):
            self.done = done

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __call__(self, count, note=""):
            self.done += count
            act(self.done)

    return Bar


def test_a_resumed_run_is_the_unbroken_run(unbroken, tmp_path, monkeypatch):
    def stop(done):
        if done >= 5:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(progress, "bar", bar_that(stop))
        with pytest.raises(Stopped):
            fit_tiny(tmp_path)
    stopped = checkpoint.restore(tmp_path, unbroken)
    assert stopped is not None
    assert 5 <= stopped.step < STEPS
    np.testing.assert_array_equal(stopped.losses[stopped.step :], 0)

    resumed_at = []
    monkeypatch.setattr(progress, "bar", bar_that(resumed_at.append))
    chex.assert_trees_all_equal(fit_tiny(tmp_path), unbroken)
    assert resumed_at[0] > stopped.step
    assert resumed_at[-1] == STEPS

    # A finished training is read, and does not run again.
    resumed_at.clear()
    chex.assert_trees_all_equal(fit_tiny(tmp_path), unbroken)
    assert resumed_at == []


def test_a_killed_run_resumes_as_the_unbroken_run(unbroken, tmp_path):
    """SIGKILL comes at a random moment: in a step, while a checkpoint is written, or between."""
    child = subprocess.Popen(command("tests.train.test_train", tmp_path), cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not any(p.name.isdigit() for p in tmp_path.iterdir()):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    kept = checkpoint.restore(tmp_path, unbroken)
    assert kept is not None
    assert 0 < kept.step < STEPS
    chex.assert_trees_all_equal(fit_tiny(tmp_path), unbroken)


def never_finish(done):
    """Keep the process that is to be killed from ending before."""
    if done > STEPS // 2:
        time.sleep(600)


# ------------------------------------------------------------------------------------ the loop


def square(variables, batch, key):
    return (variables["params"]["w"] ** 2).sum(), {}


def test_the_callers_variables_stay_alive():
    """The loop donates the buffers of its state: they must be its own."""
    variables = {"params": {"w": jnp.arange(3.0)}}
    for _ in range(2):
        state = train.fit(square, variables, IMAGES, steps=2, batch_size=8, show_progress=False)
        assert np.all(np.asarray(state.params["w"])[1:] < [1, 2])
    np.testing.assert_array_equal(variables["params"]["w"], [0, 1, 2])


def test_seed_and_loss_record(unbroken):
    other = fit_tiny(seed=1)
    assert other.step == unbroken.step == STEPS
    assert np.all(np.asarray(other.losses) != np.asarray(unbroken.losses))
    assert unbroken.losses[-10:].mean() < 0.9 * unbroken.losses[:10].mean()
    assert unbroken.variables["params"] is unbroken.average
    assert unbroken.variables["batch_stats"] is unbroken.batch_stats


@pytest.mark.parametrize(
    ("data", "shown"),
    [(IMAGES, "1.000 bits/dim"), ((IMAGES, np.zeros(len(IMAGES))), "loss 11.090")],
)
def test_progress_is_shown_on_stderr(data, shown, capsys):
    """16 ln 2 nats over 16 dimensions are one bit; with labels the loss has no such unit."""
    variables = {"params": {"w": jnp.sqrt(jnp.full(16, np.log(2)))}}
    train.fit(square, variables, data, steps=1, batch_size=8)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training" in captured.err
    assert "1/1" in captured.err
    assert shown in captured.err


def recording_loss(variables, batch, key):
    """A loss that writes down the index of each image of each batch, and the noise key."""
    step, seen, keys = (variables["batch_stats"][k] for k in ("step", "seen", "keys"))
    stats = {
        "step": step + 1,
        "seen": seen.at[step].set(batch["index"]),
        "keys": keys.at[step].set(jax.random.key_data(key)),
    }
    assert batch["images"].shape == (3, 4, 4, 1)
    return variables["params"]["w"] ** 2, stats


def test_batches_are_drawn_without_replacement_epoch_by_epoch():
    data = {"images": IMAGES[:10], "index": np.arange(10)}
    stats = {
        "step": jnp.int32(0),
        "seen": jnp.full((12, 3), -1, jnp.int32),
        "keys": jnp.zeros((12, 2), jnp.uint32),
    }
    state = train.fit(
        recording_loss,
        {"params": {"w": jnp.ones(())}, "batch_stats": stats},
        data,
        steps=12,
        batch_size=3,
        show_progress=False,
    )
    epochs = np.asarray(state.batch_stats["seen"]).reshape(4, 9)
    for epoch in epochs:
        assert len(set(epoch)) == 9
        assert set(epoch) <= set(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len(np.unique(state.batch_stats["keys"], axis=0)) == 12


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="7 images do not fill one batch of 8"):
        train.fit(recording_loss, {"params": {}}, IMAGES[:7], steps=1, batch_size=8)


@functools.cache
def failing_loss(how):
    """Make a loss that is not finite at one step, in its value or in its gradient alone."""

    def loss(variables, batch, key):
        w, stats = variables["params"]["w"], variables["batch_stats"]
        fails = stats["step"] == stats["fails_at"]
        value = w**2
        if how == "value":
            value += jnp.where(fails, jnp.nan, 0.0)
        else:
            # The slope of the root at 0 is infinite, and 0 times infinity is NaN.
            value += jnp.sqrt(0 * w + jnp.where(fails, 0.0, 1.0))
        return value, stats | {"step": stats["step"] + 1}

    return loss


def failing_at(step):
    stats = {"step": jnp.int32(0), "fails_at": jnp.int32(step)}
    return {"params": {"w": jnp.ones(())}, "batch_stats": stats}


@pytest.mark.parametrize(
    ("fails_at", "how", "save_every"),
    [(0, "value", 60), (1, "value", 60), (1, "value", 0), (6, "value", 60), (9, "gradient", 0)],
)
def test_divergence_keeps_the_last_good_state(fails_at, how, save_every, tmp_path):
    with pytest.raises(train.Diverged) as caught:
        train.fit(
            failing_loss(how),
            failing_at(fails_at),
            IMAGES,
            steps=12,
            batch_size=8,
            optimizer=ADAM,
            directory=tmp_path,
            save_every=save_every,
            show_progress=False,
        )
    assert f"in step {fails_at + 1} of 12" in str(caught.value)
    assert str(tmp_path) in str(caught.value)

    # The oracle is the same training up to the step before the failure.
    steps = train.make_train_steps(failing_loss(how), ADAM, 8, seed=0)
    good, ok = steps(train.init_state(failing_at(fails_at), ADAM, 12), IMAGES, fails_at)
    assert ok
    kept = checkpoint.restore(tmp_path, good)
    assert kept is not None
    assert kept.step == fails_at
    chex.assert_tree_all_finite(kept)
    chex.assert_trees_all_close(kept, good, rtol=1e-6)


def test_divergence_without_a_directory_names_none():
    with pytest.raises(train.Diverged, match="in step 3 of 12; Lower the learning rate"):
        train.fit(
            failing_loss("value"),
            failing_at(2),
            IMAGES,
            steps=12,
            batch_size=8,
            optimizer=ADAM,
            show_progress=False,
        )


if __name__ == "__main__":
    progress.bar = bar_that(never_finish)
    fit_tiny(sys.argv[1])
