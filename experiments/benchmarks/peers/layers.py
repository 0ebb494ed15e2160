"""This module holds what peers share: layers, and the copy of a layer's weights from Flax."""

# pyright: reportMissingImports=false

import abc
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Tree = Mapping[str, Any]


class Peer(abc.ABC, nn.Module):
    """A model of uint8 images ``(n, c, h, w)``."""

    @abc.abstractmethod
    def load(self, variables: Tree) -> None:
        """Copy all parameters and running statistics from variables of jaxood's model."""

    @abc.abstractmethod
    def evaluate(self, x: Tensor) -> Tensor:
        """Compute what an evaluation computes of a batch."""

    @abc.abstractmethod
    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a training step."""


class Density(Peer):
    """A density model. It is evaluated to log-likelihoods, and its loss is minus their mean."""

    def noise(self, x: Tensor) -> Tensor | None:
        """Draw the noise of a batch; None for a model that needs none."""
        return None

    @abc.abstractmethod
    def log_prob(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute log-likelihoods ``(n,)`` in nats, with BatchNorm in the module's mode.

        Args:
            x: uint8 ``(n, c, h, w)``.
            noise: as `noise` draws it; by default what jaxood takes without a key.
        """

    def evaluate(self, x: Tensor) -> Tensor:
        """Compute log-likelihoods ``(n,)`` in nats."""
        return self.log_prob(x)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Compute minus the mean log-likelihood in nats; labels are not used."""
        del labels
        return -self.log_prob(x, self.noise(x)).mean()


@torch.no_grad()
def copy(layer: Any, params: Tree, stats: Tree | None = None) -> None:
    """Copy a convolution, transposed convolution, dense layer or BatchNorm from Flax.

    Args:
        layer: the layer of PyTorch.
        params: parameters of Flax's layer.
        stats: its running statistics, of a BatchNorm.
    """
    if stats is not None:
        layer.weight.copy_(tensor(params["scale"]))
        layer.running_mean.copy_(tensor(stats["mean"]))
        layer.running_var.copy_(tensor(stats["var"]))
    else:
        kernel = tensor(params["kernel"])
        # A transposed convolution of jaxood has the channels of its result before the others.
        layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
    if layer.bias is not None:
        layer.bias.copy_(tensor(params["bias"]))


def tensor(array: Any) -> Tensor:
    """Return a copy of an array as a tensor."""
    return torch.from_numpy(np.array(array))


def unstack(tree: Any, index: int) -> Any:
    """Return the variables of one layer of those that Flax scanned."""
    if isinstance(tree, Mapping):
        return {name: unstack(branch, index) for name, branch in tree.items()}
    return tree[index]


def squeeze(x: Tensor) -> Tensor:
    """Move 2x2 patches into channels, in the order of `jaxood.nn.layers.squeeze`."""
    n, c, h, w = x.shape
    x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, 4 * c, h // 2, w // 2)


def normal_log_prob(z: Tensor) -> Tensor:
    """Compute the log-density of each image under the standard normal, ``(n,)`` nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum((1, 2, 3))


def to_unit(x: Tensor) -> Tensor:
    """Scale levels 0 to 255 to [-1, 1]."""
    return x / 127.5 - 1
