"""The neural rendering model: a ConvNet, read backwards (Ho et al. 2018; NRM paper, Section 2).

Layer l of the network is ``g(l) = relu(pool(W(l) g(l-1) + b(l)))``. The latents are what it chose
on an image: which pixels are on, s(l), and which pixel of each window won, t(l). With those held
fixed the network is affine, and rendering is the adjoint of its linear part: from the template of
a class, ``h(l-1) = W(l)' unpool_t(l)(s(l) h(l))`` down to the image h(0). (Pooling before the ReLU
is pooling after it, and gives s(l) and t(l) the size of the layer's result.)

Three identities follow, for any network here, BatchNorm folded into its weights and biases:

- ``h(0)`` is the gradient of the logit of y by the image;
- ``sum_l <b(l), s(l) h(l)>``, which is log p(z*|y) up to its normalizer, is the derivative of that
  logit along the bias vector;
- the logit less its own bias is ``<x, h(0)> + sum_l <b(l), s(l) h(l)>``.

So where rendering is perfect, h(0) = x, the logit is ``|x|^2 / 2`` and a constant, its gradient
being x, and log p(z*|y) is a constant less ``|x|^2 / 2``: the better a network renders, the more
its latents' likelihood follows the energy of the image, whatever it shows.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax

from jaxood.density import Array, Init, LogProb, Spec, Variables
from jaxood.models.nrm.folded import Folded
from jaxood.models.nrm.network import Latents


class Encode(Protocol):
    """The `NRM.encode` function."""

    def __call__(
        self, variables: Variables | Folded, x: Array, *, train: bool = False, mutable: Any = False
    ) -> Any:
        """Run the network on images.

        Args:
            variables: variables of the model, or folded.
            x: uint8 ``(n, h, w, c)``, or floating and scaled to [-1, 1].
            train: BatchNorm mode.
            mutable: False or ``["batch_stats"]``.

        Returns:
            Logits ``(n, classes)``, features ``(g(0), ..., g(L))`` and `Latents`. With
            ``mutable=["batch_stats"]`` the result is a pair of that and the running statistics
            after this batch.

        Raises:
            TypeError: if the images are integers of another type.
            ValueError: if the images have another shape than those of the model.
        """
        ...


class Render(Protocol):
    """The `NRM.render` function."""

    def __call__(
        self,
        variables: Variables | Folded,
        y: Array | None,
        latents: Latents,
        *,
        from_layer: int | None = None,
        h: Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Render images, or features, from latents.

        Args:
            variables: variables of the model, BatchNorm at its running statistics, or folded.
            y: class labels, int ``(n,)``.
            latents: latent variables of the images.
            from_layer: k, from which to render ``h``; L by default.
            h: ``(n, h, w, c)``, the shape of g(k). Rendering starts there, and ``y`` has no
                effect. Without ``h`` it starts from the template of the class ``y``.

        Returns:
            ``(h(0), ..., h(k))``.

        Raises:
            ValueError: if rendering cannot start at that layer.
        """
        ...


class NRM(NamedTuple):
    """A neural rendering model as pure functions.

    ``variables`` with ``"batch_stats"`` are a network with BatchNorm, and those without, such as
    folded ones, a network without it.

    Attributes:
        init: ``(key, x) -> variables``: ``"params"`` and, with BatchNorm, ``"batch_stats"``.
        encode: maps images to logits, features and `Latents`, see `Encode`.
        render: maps classes and latents to images and features, see `Render`.
        log_prob: the lower bound of Theorem 2 at sigma = 1, up to a constant,
            ``-|x - h(0)|^2 / 2 + log p(z*|y*)``, ``(n,)`` nats, on scaled images, with the
            arguments of a `DensityModel`. The normalizer, which depends on y*, is left out. There
            is no noise and no dropout: ``key`` and ``dropout_key`` have no effect.
        shapes: ``(h, w, c)`` of g(0), ..., g(L).
        spec: the `Spec` from which `jaxood.density.build` makes this model again.
    """

    init: Init
    encode: Encode
    render: Render
    log_prob: LogProb
    shapes: tuple[tuple[int, ...], ...]
    spec: Spec | None = None
