"""The contract of a density model, its written specification, and the noise of its images."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray
"""An array on the host or on a device."""

Variables = Mapping[str, Any]
"""Flax variables: ``"params"`` and, where the model has BatchNorm, ``"batch_stats"``."""


class Init(Protocol):
    """The `DensityModel.init` function."""

    def __call__(self, key: jax.Array, x: Array) -> Any:
        """Make initial variables (see `Variables`).

        Args:
            key: a typed key.
            x: uint8 ``(n, h, w, c)``. Only its shape matters, unless the model's docstring says
                that initial parameters depend on the images.

        Returns:
            A dict with ``"params"`` and, where the model has BatchNorm, ``"batch_stats"``.
        """
        ...


class LogProb(Protocol):
    """The `DensityModel.log_prob` function."""

    def __call__(
        self,
        variables: Any,
        x: Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
        mutable: Any = False,
    ) -> Any:
        """Evaluate log-likelihoods.

        Args:
            variables: variables of the model.
            x: uint8 ``(n, h, w, c)``.
            train: BatchNorm mode. In training mode an image is normalized by the statistics of
                its batch, in evaluation mode by the running statistics.
            key: one key for the batch, or ``(n,)`` keys, one an image. Without a key the model is
                evaluated at the centre of its noise.
            dropout_key: random key of the dropout, which acts only where this key is given.
                Training gives it; scores never do, not even those that use training-mode BatchNorm.
            mutable: False or ``["batch_stats"]``.

        Returns:
            float32 ``(n,)``, nats an image under the 256-level discrete measure. With
            ``mutable=["batch_stats"]`` the result is a pair of that and the running statistics
            after this batch.

        Raises:
            TypeError: if ``x`` is not uint8.
            ValueError: if the images have another shape than those of the model.
        """
        ...


class Sample(Protocol):
    """The `DensityModel.sample` function."""

    def __call__(
        self, variables: Any, key: jax.Array, n: int, *, temperature: float = 1.0
    ) -> jax.Array:
        """Draw images in evaluation mode.

        Args:
            variables: variables of the model.
            key: a typed key.
            n: number of images.
            temperature: number >= 0 that scales the noise.

        Returns:
            uint8 ``(n, h, w, c)``.
        """
        ...


class DensityModel(NamedTuple):
    """A density over uint8 images, as three pure functions (the shape of an optax optimizer).

    The BatchNorm modes are arguments of one function, never a flag of the model:

    ==================  =====================================================================
    evaluation          ``log_prob(v, x)``
    training            ``log_prob(v, x, train=True)``
    mixed, ratio r      ``log_prob(v, concatenate([x_test, x_ref]), train=True)[:len(x_test)]``
    ==================  =====================================================================

    Attributes:
        init: ``(key, x) -> variables``, see `Init`.
        log_prob: ``(variables, x, *, train, key, dropout_key, mutable)`` to float32 ``(n,)``, see
            `LogProb`; the model's docstring says whether it is exact or a bound.
        sample: ``(variables, key, n, *, temperature)`` to uint8 ``(n, h, w, c)``, see `Sample`.
        spec: the `Spec` from which `build` makes this model again; None for a model that no
            `builder` made.
    """

    init: Init
    log_prob: LogProb
    sample: Sample
    spec: Spec | None = None


class HasLogProb(Protocol):
    """A `DensityModel` or any other model that has its ``init``, ``log_prob`` and ``spec``."""

    @property
    def init(self) -> Init:
        """Make initial variables."""
        ...

    @property
    def log_prob(self) -> LogProb:
        """Evaluate log-likelihoods."""
        ...

    @property
    def spec(self) -> Spec | None:
        """The specification of the model, if it has one."""
        ...


# ----------------------------------------------------------------------------------- specification


class Spec(NamedTuple):
    """Plain data from which `build` makes a model again.

    Attributes:
        name: name of the builder, such as ``"realnvp"``.
        arguments: arguments of the builder, in pairs of a name and a value. Values are numbers,
            strings, truth values, None, tuples of them, and the specifications of wrapped models.
    """

    name: str
    arguments: tuple[tuple[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the specification as a dict that `json.dumps` writes and `from_json` reads.

        Raises:
            ValueError: if an argument is no plain data, for example a function.
        """
        arguments = {}
        for argument, value in self.arguments:
            arguments[argument] = _to_json(value, f"the argument {argument!r} of {self.name!r}")
        return {"name": self.name, "arguments": arguments}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """Read what `to_json` returned.

        Raises:
            ValueError: if ``data`` does not have that form.
        """
        match data:
            case {"name": str(name), "arguments": dict(arguments)} if len(data) == 2:
                return cls(name, tuple((key, _from_json(arguments[key])) for key in arguments))
        raise ValueError(f'a specification is {{"name": ..., "arguments": {{...}}}}, not {data!r}')


def _to_json(value: Any, where: str) -> Any:
    if isinstance(value, Spec):
        return value.to_json()
    if isinstance(value, tuple):
        return [_to_json(item, where) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{where} is {value!r}, which cannot be written down: only plain data can")


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return Spec.from_json(value)
    return tuple(map(_from_json, value)) if isinstance(value, list) else value


_BUILDERS: dict[str, Callable[..., Any]] = {}

Arguments = ParamSpec("Arguments")
Model = TypeVar("Model", bound=tuple)


def builder(make: Callable[Arguments, Model]) -> Callable[Arguments, Model]:
    """Let the models that a function returns say how they were built: a decorator.

    Args:
        make: a function of plain data, and of models where it wraps any, that returns a
            `DensityModel` or another NamedTuple with a field ``spec``. It is registered under its
            name, by which `build` finds it.

    Returns:
        The same function, whose results have a `Spec`. Default values are written into it, except
        for functions. The specification is None where a wrapped model has none.

    Raises:
        ValueError: if another function is registered under that name.
    """
    name, signature = make.__name__, inspect.signature(make)

    @functools.wraps(make)
    def built(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Model:
        model: Any = make(*args, **kwargs)
        return model._replace(spec=_spec(name, signature, args, kwargs))

    known = _BUILDERS.setdefault(name, built)
    if known.__module__ != built.__module__:
        raise ValueError(f"{known.__module__} has a builder {name!r} already: choose another name")
    _BUILDERS[name] = built  # of a notebook's cell that runs again
    return built


def _spec(name: str, signature: inspect.Signature, args: tuple, kwargs: dict) -> Spec | None:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = {}
    for argument, value in bound.arguments.items():
        parameter = signature.parameters[argument]
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(value)
        elif not (callable(value) and value is parameter.default):
            arguments[argument] = value
    if any(getattr(value, "spec", ...) is None for value in arguments.values()):
        return None
    return Spec(name, tuple((key, _plain(value)) for key, value in arguments.items()))


def _plain(value: Any) -> Any:
    """A wrapped model's specification; tuples for lists; Python's numbers for NumPy's."""
    if hasattr(value, "spec"):
        return value.spec
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def build(spec: Spec) -> Any:
    """Build the model of a specification; its log-likelihoods are equal to the bit.

    Args:
        spec: specification of a `DensityModel` or another model that a `builder` made.

    Returns:
        The model.

    Raises:
        ValueError: if no builder has that name (nothing is imported by a name), or if the builder
            does not take these arguments.
    """
    if spec.name not in _BUILDERS:
        known = ", ".join(sorted(_BUILDERS))
        raise ValueError(f"no builder has the name {spec.name!r}; there are {known}")
    make = _BUILDERS[spec.name]
    arguments = {
        name: build(value) if isinstance(value, Spec) else value for name, value in spec.arguments
    }
    try:
        inspect.signature(make).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"{spec.name!r} is not built from these arguments: {error}") from error
    return make(**arguments)


# ------------------------------------------------------------------------------- images and noise


def bits_per_dim(log_prob: Any, image_shape: Sequence[int]) -> Any:
    """Convert log-likelihoods from nats an image to bits a dimension (lower = likelier).

    Args:
        log_prob: a number or an array of any shape, nats an image.
        image_shape: ``(h, w, c)``.

    Returns:
        ``-log_prob / (h w c ln 2)``, the same shape as ``log_prob``.
    """
    return -log_prob / (np.prod(image_shape) * np.log(2.0))


def dequantize(key: jax.Array | None, x: Array, dtype: Any = jnp.float32) -> jax.Array:
    """Spread each of 256 levels over its own unit interval (Theis et al. 2016).

    Args:
        key: ``None`` for the centre of each interval, one key for the whole batch, or ``(n,)``
            keys, one an image, which make an image's noise independent of its batch companions.
        x: uint8 ``(n, h, w, c)``.
        dtype: type of the result.

    Returns:
        ``(n, h, w, c)`` in ``[0, 256]``: ``x + u`` with ``u`` uniform on ``[0, 1)``.

    Raises:
        TypeError: if ``x`` is not uint8.
    """
    check_images(x)
    noise = 0.5 if key is None else draw(jax.random.uniform, key, x.shape, dtype)
    return jnp.asarray(x, dtype) + noise


def check_images(x: Array) -> None:
    """Check that images have 256 levels.

    Raises:
        TypeError: if ``x`` is not uint8.
    """
    if x.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8 with levels 0 to 255, got {x.dtype}")


def check_shape(x: Array, image_shape: Sequence[int]) -> None:
    """Check that images have the shape that a model is for: convolutions would take any size.

    Args:
        x: ``(n, h, w, c)``.
        image_shape: ``(h, w, c)`` of the model.

    Raises:
        ValueError: if the images have another shape.
    """
    if x.shape[1:] != tuple(image_shape):
        raise ValueError(f"the model is for images {tuple(image_shape)}, not {x.shape[1:]}")


def draw(
    sampler: Callable[..., jax.Array],
    key: jax.Array,
    shape: Sequence[int],
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Draw noise for a batch from one key, or from ``(n,)`` keys, one an image.

    Args:
        sampler: ``(key, shape, dtype) -> array``, such as `jax.random.normal`.
        key: one key for the whole batch, or ``(n,)`` keys, which make an image's noise independent
            of its batch companions.
        shape: shape of the result, ``(n, ...)``.
        dtype: type of the result.

    Returns:
        An array of that shape.
    """
    if jnp.ndim(key) == 0:
        return sampler(key, shape, dtype)
    return jax.vmap(lambda k: sampler(k, shape[1:], dtype))(key)


def image_keys(key: jax.Array, x: Array) -> jax.Array:
    """Make one key for each image, a function of ``key`` and of that image's pixels alone.

    Noise drawn from these keys follows an image wherever it goes: its score does not depend on its
    position, its batch companions, the chunk size or the number of devices.

    Args:
        key: a typed key.
        x: uint8 ``(n, h, w, c)``.

    Returns:
        ``(n,)`` typed keys.
    """
    flat = x.reshape(len(x), -1).astype(jnp.uint32)
    # A multiply-add hash modulo 2^32; odd multipliers make every single-pixel change visible.
    weights = jax.random.bits(jax.random.key(0), (flat.shape[1],), jnp.uint32) | 1
    return jax.vmap(lambda h: jax.random.fold_in(key, h))(jnp.sum(flat * weights, 1, jnp.uint32))
