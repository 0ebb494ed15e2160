"""BatchNorm over all but the last axis, with an optional ReLU, in few passes over the memory.

In training mode it is one JAX primitive, and its derivative another. With xhat the standardized
input, that derivative maps x' to ``scale / std (x' - mean(x') - xhat mean(xhat x'))``. The map is
its own adjoint, so the third primitive, the transpose of the second, is nearly the same program.
Higher derivatives are those of the plain definitions below. On the CPU the three run in native code
(`jaxood.nn.native`), which takes two passes for each; XLA takes four to seven.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxood.nn import native

BATCH_NORM_MOMENTUM = 0.9
"""The weight of the OLD value in a running average (Flax's convention)."""

BATCH_NORM_EPSILON = 1e-5
"""The number that is added to a variance."""


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015) over all axes but the last.

    It has the parameters and the collection ``batch_stats`` of `flax.linen.BatchNorm`. Variances
    are means of squared deviations: E[x^2] - E[x]^2 cancels badly, and the BatchNorm test measures
    small differences.

    Attributes:
        use_running_average: normalize by the running statistics, which is evaluation mode, and not
            by the batch's own.
        relu: apply a ReLU to the result.
        use_scale: have a learned scale for each channel.
        use_bias: have a learned bias for each channel.
        scale_init: initializer of the scale.
    """

    use_running_average: bool
    relu: bool = False
    use_scale: bool = True
    use_bias: bool = True
    scale_init: Callable[..., Any] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(..., c)`` to the same shape."""
        c = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,))
        scale = self.param("scale", self.scale_init, (c,)) if self.use_scale else jnp.ones(c)
        bias = self.param("bias", nn.initializers.zeros, (c,)) if self.use_bias else jnp.zeros(c)
        if self.use_running_average:
            factor = scale * jax.lax.rsqrt(running_var.value + BATCH_NORM_EPSILON)
            y = (x - running_mean.value) * factor + bias
            return nn.relu(y) if self.relu else y
        y, mean, var = normalize(x, scale, bias, relu=self.relu)
        if not self.is_initializing():
            for running, new in ((running_mean, mean), (running_var, var)):
                old = BATCH_NORM_MOMENTUM * running.value
                running.value = old + (1 - BATCH_NORM_MOMENTUM) * new
        return y


def normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, relu: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalize a batch by its own moments.

    Args:
        x: ``(..., c)``.
        scale: ``(c,)``.
        bias: ``(c,)``.
        relu: apply a ReLU to the result.

    Returns:
        ``scale (x - mean) / sqrt(var + epsilon) + bias`` of the shape of ``x``, and the mean and
        the variance (divisor: the number of values) of each channel, ``(c,)``.
    """
    dtype = jnp.result_type(x, scale, bias)
    x, scale, bias = (jnp.asarray(a, dtype) for a in (x, scale, bias))
    rows = x.reshape(1, -1, x.shape[-1])
    y, mean, var = _normalize.bind(rows, scale[None], bias[None], relu=relu)
    return y.reshape(x.shape), mean[0], var[0]


# ------------------------------------------- the definitions: (m, n, c) and (m, c), m members


def _on(relu, xhat, scale, bias, values):
    """Values where the ReLU is on, and zero elsewhere."""
    return jnp.where(xhat * scale[:, None] + bias[:, None] > 0, values, 0) if relu else values


def _standardize(x, mean, var):
    return (x - mean[:, None]) * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)[:, None]


def _define(x, scale, bias, *, relu):
    mean = x.mean(1)
    var = jnp.square(x - mean[:, None]).mean(1)
    y = _standardize(x, mean, var) * scale[:, None] + bias[:, None]
    return nn.relu(y) if relu else y, mean, var


def _define_tangent(x, mean, var, scale, bias, x_dot, scale_dot, bias_dot, *, relu):
    xhat = _standardize(x, mean, var)
    factor = (scale * jax.lax.rsqrt(var + BATCH_NORM_EPSILON))[:, None]
    moved = x_dot - x_dot.mean(1, keepdims=True) - xhat * (xhat * x_dot).mean(1, keepdims=True)
    y_dot = factor * moved + xhat * scale_dot[:, None] + bias_dot[:, None]
    return (_on(relu, xhat, scale, bias, y_dot),)


def _define_cotangent(x, mean, var, scale, bias, y_bar, *, relu):
    xhat = _standardize(x, mean, var)
    factor = (scale * jax.lax.rsqrt(var + BATCH_NORM_EPSILON))[:, None]
    y_bar = _on(relu, xhat, scale, bias, y_bar)
    scale_bar, bias_bar = (xhat * y_bar).sum(1), y_bar.sum(1)
    taken = (bias_bar[:, None] + xhat * scale_bar[:, None]) / x.shape[1]
    return factor * (y_bar - taken), scale_bar, bias_bar


# ---------------------------------------------------------------------------- as JAX primitives


def _primitive(
    name: str, define: Callable[..., tuple[jax.Array, ...]], like: Sequence[int]
) -> Primitive:
    """Make a primitive that computes what ``define`` does.

    Args:
        name: its name; the native operation's is ``jaxood_`` and this.
        define: the definition.
        like: for each result, the argument that has its shape.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True
    compiled = jax.jit(primitive.bind, static_argnames="relu")

    @primitive.def_impl
    def _(*args, relu):
        with jax.disable_jit(False):
            return compiled(*args, relu=relu)

    @primitive.def_abstract_eval
    def _(*args, relu):
        return [ShapedArray(args[i].shape, args[i].dtype) for i in like]

    def in_native_code(*args, relu):
        shapes = [jax.ShapeDtypeStruct(args[i].shape, args[i].dtype) for i in like]
        return native.call(name, shapes, *args, attribute=(BATCH_NORM_EPSILON, float(relu)))

    by_xla = mlir.lower_fun(define, multiple_results=True)
    on_cpu = native.preferred(in_native_code, by_xla, multiple_results=True)
    mlir.register_lowering(primitive, by_xla)
    mlir.register_lowering(primitive, on_cpu, platform="cpu")

    def batch(args, dims, *, relu):
        size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
        if dims[0] is None:  # copies of x would take more memory than the members' results
            each = jax.vmap(functools.partial(define, relu=relu), dims)
            return [*each(*args)], [0] * len(like)
        members = [
            jnp.broadcast_to(a, (size, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
            for a, d in zip(args, dims, strict=True)
        ]
        joined = primitive.bind(*(a.reshape(-1, *a.shape[2:]) for a in members), relu=relu)
        return [z.reshape(size, -1, *z.shape[1:]) for z in joined], [0] * len(like)

    batching.primitive_batchers[primitive] = batch
    return primitive


_normalize = _primitive("batch_norm", _define, like=(0, 1, 1))
_tangent = _primitive("batch_norm_tangent", _define_tangent, like=(0,))
_cotangent = _primitive("batch_norm_cotangent", _define_cotangent, like=(0, 1, 1))


def _differentiate(primals, tangents, *, relu):
    x, scale, bias = primals
    x_dot, scale_dot, bias_dot = map(ad.instantiate_zeros, tangents)
    y, mean, var = _normalize.bind(x, scale, bias, relu=relu)
    (y_dot,) = _tangent.bind(x, mean, var, scale, bias, x_dot, scale_dot, bias_dot, relu=relu)
    var_dot = 2 * ((x - mean[:, None]) * x_dot).mean(1)
    return [y, mean, var], [y_dot, x_dot.mean(1), var_dot]


ad.primitive_jvps[_normalize] = _differentiate


def _differentiate_twice(primitive, define):
    def differentiate(primals, tangents, *, relu):
        exact = map(ad.instantiate_zeros, tangents)
        _, dots = jax.jvp(functools.partial(define, relu=relu), tuple(primals), tuple(exact))
        return primitive.bind(*primals, relu=relu), [*dots]

    ad.primitive_jvps[primitive] = differentiate


def _transpose_tangent(bars, *args, relu):
    y_bar = ad.instantiate_zeros(bars[0])
    transposed = _cotangent.bind(*args[:5], y_bar, relu=relu)
    # A tangent that is no variable of the linear map is known to be zero.
    wanted = map(ad.is_undefined_primal, args[5:])
    return [None] * 5 + [
        bar if want else None for bar, want in zip(transposed, wanted, strict=True)
    ]


def _transpose_cotangent(bars, *args, relu):
    return [None] * 5 + _tangent.bind(*args[:5], *map(ad.instantiate_zeros, bars), relu=relu)


_differentiate_twice(_tangent, _define_tangent)
_differentiate_twice(_cotangent, _define_cotangent)
ad.primitive_transposes[_tangent] = _transpose_tangent
ad.primitive_transposes[_cotangent] = _transpose_cotangent
