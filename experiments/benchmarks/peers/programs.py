"""Training steps and evaluations in PyTorch. JAX is not imported."""

# pyright: reportMissingImports=false

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.cases import Case
from experiments.benchmarks.peers.layers import Density, Peer
from experiments.benchmarks.timing import Run

FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
"""Layouts of images in memory, by the names that lines have."""

PRODUCT = 2048
"""Rows and columns of the matrices whose product is the peak."""


def device(platform: str) -> str:
    """Return PyTorch's device for a platform of JAX, with TF32 where JAX has it."""
    if platform == "cpu":
        return "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return "cuda"


def build(case: Case, variables: Any = None, layout: str = "NCHW", on: str = "cpu") -> Any:
    """Build the peer of a model, with the model's weights where they are given.

    Args:
        case: the model.
        variables: variables of jaxood's model, or None.
        layout: key of `FORMATS`.
        on: PyTorch's device.

    Returns:
        A `Peer`.
    """
    module, name = case.peer.split(".")
    module = importlib.import_module(f"experiments.benchmarks.peers.{module}")
    peer: Any = getattr(module, name)(case.shape, **case.sizes)
    if variables is not None:
        peer.load(variables)
    return peer.to(on, memory_format=FORMATS[layout])


def images_of(case: Case, seed: int, layout: str = "NCHW", on: str = "cpu") -> Tensor:
    """Return the images of a case, uint8 ``(n, c, h, w)``, in a layout."""
    return as_tensor(case.images(seed), layout, on)


def as_tensor(images: np.ndarray, layout: str = "NCHW", on: str = "cpu") -> Tensor:
    """Return images ``(n, h, w, c)`` as a tensor ``(n, c, h, w)`` in a layout."""
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return tensor.to(on, memory_format=FORMATS[layout])


def training(case: Case, peer: Peer, seed: int, layout: str, on: str = "cpu") -> Run:
    """Prepare training steps with Adam, each on images chosen at random."""
    data = images_of(case, seed, layout, on)
    labels = torch.from_numpy(case.labels(seed)).to(on)
    optimizer = torch.optim.Adam(peer.parameters(), lr=1e-3, fused=True)
    peer.train()

    def run(count: int) -> None:
        for _ in range(count):
            chosen = torch.randperm(len(data), device=on)[: case.batch_size]
            x = data[chosen].contiguous(memory_format=FORMATS[layout])
            loss = peer.loss(x, labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        wait(on)

    return run


def evaluation(case: Case, peer: Peer, seed: int, layout: str, on: str = "cpu") -> Run:
    """Prepare log-likelihoods of a batch in evaluation mode; of an NRM, its logits."""
    x = images_of(case, seed, layout, on)[: case.batch_size]
    peer.eval()

    def run(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                peer.evaluate(x)
        wait(on)

    return run


PARTS: dict[str, Callable[..., Run]] = {"training": training, "evaluation": evaluation}
"""The programs that are timed of a model, by name."""


def mixed_log_prob(
    peer: Density, images: np.ndarray, trusted: np.ndarray, layout: str, on: str = "cpu"
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Prepare training-mode log-likelihoods of mixed batches.

    Args:
        peer: the model.
        images: images that are judged, uint8 ``(n, h, w, c)``.
        trusted: their companions, likewise.
        layout: key of `FORMATS`.
        on: PyTorch's device.

    Returns:
        A function of the places of a batch's images and companions; float32 ``(b,)`` nats.
    """
    judged, companions = (as_tensor(a, layout, on) for a in (images, trusted))
    peer.train()

    @torch.inference_mode()
    def evaluate(of_judged: np.ndarray, of_companions: np.ndarray) -> np.ndarray:
        x = torch.cat([judged[of_judged], companions[of_companions]])
        x = x.contiguous(memory_format=FORMATS[layout])
        return peer.log_prob(x, peer.noise(x)).cpu().numpy()

    return evaluate


def product(on: str = "cpu") -> tuple[Run, int]:
    """Prepare a product of matrices, whose speed is taken for the machine's peak.

    Returns:
        The product, and its number of operations.
    """
    a = torch.rand(PRODUCT, PRODUCT, device=on)

    def run(count: int) -> None:
        for _ in range(count):
            torch.mm(a, a)
        wait(on)

    return run, 2 * PRODUCT**3


def operations(run: Run) -> int:
    """Count the operations of the convolutions and products of one call."""
    with FlopCounterMode(display=False) as counter:
        run(1)
    return counter.get_total_flops()


def wait(on: str) -> None:
    """Wait until a device has done its work."""
    if on != "cpu":
        torch.cuda.synchronize()
