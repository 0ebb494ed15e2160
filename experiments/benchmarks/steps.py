"""Training steps and evaluations in JAX, by the library's own programs."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jaxood
from experiments.benchmarks.cases import Case
from experiments.benchmarks.timing import Run
from jaxood import nrm, train
from jaxood.train.losses import Loss


def model_of(case: Case, **options: Any) -> Any:
    """Build jaxood's model; ``options`` are further arguments of its builder."""
    make: Callable[..., Any] = getattr(nrm if case.builder == "all_cnn_c" else jaxood, case.builder)
    return make(case.shape, **case.sizes, **options)


def initial(case: Case, seed: int) -> tuple[Any, Any]:
    """Build a model, and its initial variables."""
    model = model_of(case)
    return model, model.init(jax.random.key(seed), case.images(seed)[: case.batch_size])


def loss_of(case: Case, model: Any) -> Loss:
    """Return the loss of a training: the terms of an NRM, else minus the log-likelihood."""
    if isinstance(model, nrm.NRM):
        return nrm.loss(model, nrm.LossWeights(*case.terms))
    return train.neg_log_prob_loss(model)


def training(case: Case, model: Any, variables: Any, seed: int) -> Run:
    """Prepare training steps by `train.make_train_steps`, with Adam."""
    data: Any = jnp.asarray(case.images(seed))
    if isinstance(model, nrm.NRM):
        data = data, jnp.asarray(case.labels(seed), jnp.int32)
    optimizer = optax.adam(1e-3)
    state = train.init_state(jax.tree.map(jnp.copy, variables), optimizer, steps=10_000)
    steps = train.make_train_steps(loss_of(case, model), optimizer, case.batch_size, seed)
    done = 0

    def run(count: int) -> None:
        nonlocal state, done
        done += count
        state, ok = steps(state, data, done)
        assert bool(ok), "the training diverged"

    return run


def evaluation(case: Case, model: Any, variables: Any, seed: int) -> Run:
    """Prepare log-likelihoods of a batch in evaluation mode; of an NRM, its logits."""
    x = jnp.asarray(case.images(seed)[: case.batch_size])

    @jax.jit
    def evaluate(variables, x):
        if isinstance(model, nrm.NRM):
            return model.encode(variables, x)[0]
        return model.log_prob(variables, x)

    def run(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(evaluate(variables, x))

    return run


def step_alone(case: Case, model: Any, variables: Any, seed: int) -> Run:
    """Prepare training steps outside of a loop, for models of `flax.linen.Conv`.

    Inside of a loop, XLA takes gradients of plain convolutions a hundred times slower on the CPU.
    """
    x, key = jnp.asarray(case.images(seed)[: case.batch_size]), jax.random.key(seed)
    loss, optimizer = loss_of(case, model), optax.adam(1e-3)

    @jax.jit
    def update(variables, opt_state):
        def loss_at(params):
            return loss(variables | {"params": params}, x, key)

        (_, batch_stats), grads = jax.value_and_grad(loss_at, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": batch_stats}, opt_state

    state = variables, optimizer.init(variables["params"])

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state = jax.block_until_ready(update(*state))

    return run


PARTS = {"training": training, "evaluation": evaluation}
"""The programs that are timed of a model, by name."""


def with_plain_conv(case: Case, part: str, variables: Any, seed: int) -> Run:
    """Prepare a step or an evaluation of RealNVP with `flax.linen.Conv`."""
    model = model_of(case, conv=nn.Conv)
    prepare = step_alone if part == "training" else evaluation
    return prepare(case, model, variables, seed)
