"""Networks that a neural rendering model reads backwards, at any width."""

from __future__ import annotations

from collections.abc import Sequence

from jaxood.density import builder
from jaxood.models.nrm.chain import nrm
from jaxood.models.nrm.model import NRM
from jaxood.models.nrm.network import Layer


@builder
def all_cnn_c(
    image_shape: Sequence[int],
    *,
    classes: int = 10,
    width: int = 96,
    batch_norm: bool = False,
    template: float = 0.0,
) -> NRM:
    """Build All-CNN-C (Springenberg et al. 2014, Table 1), which the NRM paper names.

    It has nine convolutions, of which the last has a channel a class, and the averages of its ReLU
    are the logits. It goes down by strides and has no pools: its only latents are the switches.

    Args:
        image_shape: ``(h, w, c)``, from 9x9 on.
        classes: number of classes.
        width: channels of the first three layers (96 in the source); the others have twice that.
        batch_norm: whether BatchNorm follows every convolution but the last.
        template: as in `nrm`.

    Returns:
        An `NRM` with L = 9.

    Raises:
        ValueError: if the images are too small.
    """
    layers = [Layer(width), Layer(width), Layer(width, stride=2)]
    layers += [Layer(2 * width), Layer(2 * width), Layer(2 * width, stride=2)]
    layers += _springenberg_top(width, classes)
    return nrm(image_shape, layers, classes=None, batch_norm=batch_norm, template=template)


@builder
def convpool_cnn_c(
    image_shape: Sequence[int],
    *,
    classes: int = 10,
    width: int = 96,
    batch_norm: bool = False,
    template: float = 0.0,
) -> NRM:
    """Build ConvPool-CNN-C (Springenberg et al. 2014, Table 2).

    It is All-CNN-C with overlapping 3x3 max-pools of stride 2 in place of strided convolutions.

    Args:
        image_shape: as in `all_cnn_c`.
        classes: likewise.
        width: likewise.
        batch_norm: likewise.
        template: likewise.

    Returns:
        An `NRM` with L = 9.

    Raises:
        ValueError: if the images are too small.
    """
    layers = [Layer(width), Layer(width), Layer(width, pool=(3, 2))]
    layers += [Layer(2 * width), Layer(2 * width), Layer(2 * width, pool=(3, 2))]
    layers += _springenberg_top(width, classes)
    return nrm(image_shape, layers, classes=None, batch_norm=batch_norm, template=template)


def _springenberg_top(width, classes):
    wide = Layer(2 * width, padding="VALID")
    return [wide, Layer(2 * width, kernel=1), Layer(classes, kernel=1, batch_norm=False)]


@builder
def all_conv_13(
    image_shape: Sequence[int],
    *,
    classes: int = 10,
    width: int = 128,
    batch_norm: bool = False,
    template: float = 0.0,
) -> NRM:
    """Build the max-pool network of the NRM group's own code (Ho et al. 2018).

    It has nine convolutions: three of ``width`` channels and a 2x2 max-pool, three of twice that
    and a 2x2 max-pool, one of four times that without padding, and two 1x1 convolutions down to
    ``width``. A global average and a dense layer follow.

    Args:
        image_shape: ``(h, w, c)``, from 9x9 on.
        classes: number of classes.
        width: channels of the first three layers (128 in the source).
        batch_norm: whether BatchNorm follows every convolution.
        template: as in `nrm`.

    Returns:
        An `NRM` with L = 9.

    Raises:
        ValueError: if the images are too small.
    """
    layers = [Layer(width), Layer(width), Layer(width, pool=(2, 2))]
    layers += [Layer(2 * width), Layer(2 * width), Layer(2 * width, pool=(2, 2))]
    layers += [Layer(4 * width, padding="VALID")]
    layers += [Layer(2 * width, kernel=1), Layer(width, kernel=1)]
    return nrm(image_shape, layers, classes=classes, batch_norm=batch_norm, template=template)


@builder
def resnet(
    image_shape: Sequence[int],
    *,
    classes: int = 10,
    width: int = 16,
    depth: int = 3,
    batch_norm: bool = False,
    template: float = 0.0,
) -> NRM:
    """Build a ResNet for small images (He et al. 2015, Section 4.2).

    It has a convolution, then three stages of residual blocks of two layers each, with the ReLU
    after the sum and 1x1 convolutions as shortcuts where sizes change. A shortcut is rendered
    through its adjoint, which adds to what comes through the block.

    Args:
        image_shape: ``(h, w, c)``.
        classes: number of classes.
        width: channels of the first stage (16 in the source), doubled in each of the next two.
        depth: residual blocks a stage (3 for ResNet-20).
        batch_norm: whether BatchNorm follows every convolution.
        template: as in `nrm`.

    Returns:
        An `NRM` with L = 1 + 6 depth. Rendering starts at the top or at a block's end.
    """
    layers = [Layer(width)]
    for stage in range(3):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(Layer(width * 2**stage, stride=stride))
            layers.append(Layer(width * 2**stage, skip=stride))
    return nrm(image_shape, layers, classes=classes, batch_norm=batch_norm, template=template)
