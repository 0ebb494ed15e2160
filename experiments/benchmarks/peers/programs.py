"""Training steps and evaluations in PyTorch."""

# pyright: reportMissingImports=false

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks.cases import Case
from experiments.benchmarks.peers.layers import Peer
from experiments.benchmarks.timing import Run

FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
"""Layouts of images in memory, by the names that tables have."""


def build(case: Case, variables: Any, layout: str = "NCHW") -> Peer:
    """Build the peer of a model, with the model's weights."""
    module, name = case.peer.split(".")
    module = importlib.import_module(f"experiments.benchmarks.peers.{module}")
    peer: Any = getattr(module, name)(case.shape, **case.sizes)
    peer.load(variables)
    return peer.to(memory_format=FORMATS[layout])


def images_of(case: Case, seed: int, layout: str) -> Tensor:
    """Return the images of a case, uint8 ``(n, c, h, w)``, in a layout."""
    images = torch.from_numpy(np.ascontiguousarray(case.images(seed).transpose(0, 3, 1, 2)))
    return images.contiguous(memory_format=FORMATS[layout])


def training(case: Case, peer: Peer, seed: int, layout: str) -> Run:
    """Prepare training steps with Adam, each on images chosen at random."""
    data, labels = images_of(case, seed, layout), torch.from_numpy(case.labels(seed))
    optimizer = torch.optim.Adam(peer.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(seed)

    def run(count: int) -> None:
        peer.train()
        for _ in range(count):
            chosen = torch.randperm(len(data), generator=generator)[: case.batch_size]
            x = data[chosen].contiguous(memory_format=FORMATS[layout])
            loss = peer.loss(x, labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run


def evaluation(case: Case, peer: Peer, seed: int, layout: str) -> Run:
    """Prepare log-likelihoods of a batch in evaluation mode; of an NRM, its logits."""
    x = images_of(case, seed, layout)[: case.batch_size]

    def run(count: int) -> Tensor:
        peer.eval()
        with torch.inference_mode():
            return [peer.evaluate(x) for _ in range(count)][-1]

    return run
