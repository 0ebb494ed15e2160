"""All-CNN-C in PyTorch, the peer of `jaxood.nrm.all_cnn_c` without BatchNorm."""

# pyright: reportMissingImports=false

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.peers.layers import Peer, Tree, copy, to_unit


class AllCnnC(Peer):
    """All-CNN-C over uint8 images, with the arguments of `jaxood.nrm.all_cnn_c`.

    A strided convolution of JAX has a margin at the end and none at the beginning, where PyTorch's
    has both. So that the same numbers come out of a plain network of PyTorch, images and kernels
    are turned around: then the margin at the beginning is the one that is used.
    """

    def __init__(self, image_shape: Sequence[int], *, classes: int = 10, width: int = 96):
        super().__init__()
        h, w, channels = image_shape
        if h % 4 or w % 4:
            raise ValueError(f"the peer is for sizes that are a multiple of 4, not {h}x{w}")
        wide, layers = 2 * width, []
        for features, kernel, stride, padding in (
            (width, 3, 1, 1),
            (width, 3, 1, 1),
            (width, 3, 2, 1),
            (wide, 3, 1, 1),
            (wide, 3, 1, 1),
            (wide, 3, 2, 1),
            (wide, 3, 1, 0),
            (wide, 1, 1, 0),
            (classes, 1, 1, 0),
        ):
            layers += [
                nn.Conv2d(channels, features, kernel, stride, padding),
                nn.ReLU(inplace=True),
            ]
            channels = features
        self.layers = nn.Sequential(*layers)

    def convs(self) -> list[Any]:
        """Return the convolutions, from the image up."""
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    def forward(self, x: Tensor) -> Tensor:
        """Map uint8 ``(n, c, h, w)`` to logits ``(n, classes)``."""
        return self.layers(to_unit(x.flip(2, 3))).mean((2, 3))

    def evaluate(self, x: Tensor) -> Tensor:
        """Compute logits."""
        return self(x)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Compute the cross-entropy in nats."""
        return F.cross_entropy(self(x), labels)

    def latent_log_prob(self, x: Tensor) -> Tensor:
        """Compute ``log p(z*|y*)`` up to its constant, ``(n,)`` nats, by one backward pass.

        The gradient of the logit by what enters a ReLU is ``s(l) h(l)``; its product with the
        biases is summed over the layers. Weights need no gradient here.
        """
        x, entered = to_unit(x.flip(2, 3)), []
        for conv in self.convs():
            x = conv(x)
            if not entered:
                x.requires_grad_()
            entered.append(x)
            x = torch.relu(x)
        top = x.mean((2, 3)).amax(1).sum()
        gradients = torch.autograd.grad(top, entered)
        terms = [
            gradient.sum((2, 3)) @ conv.bias.detach()
            for gradient, conv in zip(gradients, self.convs(), strict=True)
        ]
        return torch.stack(terms).sum(0)

    def load(self, variables: Tree) -> None:
        """Copy from jaxood's variables."""
        for i, conv in enumerate(self.convs(), 1):
            copy(conv, variables["params"][f"layer_{i}"])
            with torch.no_grad():
                conv.weight.copy_(conv.weight.flip(2, 3))
