"""The networks that the neural rendering model is run backwards through, at any width."""

from jaxood.models.nrm.model import nrm
from jaxood.models.nrm.network import Layer


def all_cnn_c(image_shape, *, classes=10, width=96, **options):
    """All-CNN-C (Springenberg et al. 2014, Table 1), which the NRM paper names: strides, no pools.

    Nine convolutions, of which the last has a channel a class; the averages of its ReLU are the
    logits. Translations are degenerate: only the switches act.

    Args:
        image_shape: ``(h, w, c)``, from 9x9 on.
        classes: number of classes.
        width: channels of the first three layers (96 in the source); the others have twice that.
        **options: of `nrm`; BatchNorm comes after every convolution but the last.

    Returns:
        An `NRM` with L = 9.

    Raises:
        ValueError: if the images are too small.
    """
    layers = [Layer(width), Layer(width), Layer(width, stride=2)]
    layers += [Layer(2 * width), Layer(2 * width), Layer(2 * width, stride=2)]
    layers += _springenberg_top(width, classes)
    return nrm(image_shape, layers, classes=None, **options)


def convpool_cnn_c(image_shape, *, classes=10, width=96, **options):
    """ConvPool-CNN-C (Springenberg et al. 2014, Table 2): overlapping 3x3 max-pools, stride 2.

    Args:
        image_shape: as in `all_cnn_c`.
        classes: likewise.
        width: likewise.
        **options: likewise.

    Returns:
        An `NRM` with L = 9.

    Raises:
        ValueError: if the images are too small.
    """
    layers = [Layer(width), Layer(width), Layer(width, pool=(3, 2))]
    layers += [Layer(2 * width), Layer(2 * width), Layer(2 * width, pool=(3, 2))]
    layers += _springenberg_top(width, classes)
    return nrm(image_shape, layers, classes=None, **options)


def _springenberg_top(width, classes):
    wide = Layer(2 * width, padding="VALID")
    return [wide, Layer(2 * width, kernel=1), Layer(classes, kernel=1, batch_norm=False)]


def all_conv_13(image_shape, *, classes=10, width=128, **options):
    """The nine-convolution max-pool network of the NRM group's own code (Ho et al. 2018).

    Three of ``width`` channels, 2x2 max-pool, three of twice that, 2x2 max-pool, one of four times
    without padding, two 1x1 convolutions down to ``width``, global average and a dense layer.

    Args:
        image_shape: ``(h, w, c)``, from 9x9 on.
        classes: number of classes.
        width: channels of the first three layers (128 in the source).
        **options: of `nrm`; BatchNorm comes after every convolution.

    Returns:
        An `NRM` with L = 9.

    Raises:
        ValueError: if the images are too small.
    """
    layers = [Layer(width), Layer(width), Layer(width, pool=(2, 2))]
    layers += [Layer(2 * width), Layer(2 * width), Layer(2 * width, pool=(2, 2))]
    layers += [Layer(4 * width, padding="VALID")]
    layers += [Layer(2 * width, kernel=1), Layer(width, kernel=1)]
    return nrm(image_shape, layers, classes=classes, **options)


def resnet(image_shape, *, classes=10, width=16, depth=3, **options):
    """ResNet for small images (He et al. 2015, Section 4.2), with 1x1 convolutions as shortcuts.

    A convolution, then three stages of residual blocks of two layers each, with the ReLU after
    the sum. Each layer has its own switches and one bias, a shortcut's folded into it; a shortcut
    is rendered through its adjoint, which adds to what comes through the block.

    Args:
        image_shape: ``(h, w, c)``.
        classes: number of classes.
        width: channels of the first stage (16 in the source), doubled in each of the next two.
        depth: residual blocks a stage (3 for ResNet-20).
        **options: of `nrm`; BatchNorm comes after every convolution.

    Returns:
        An `NRM` with L = 1 + 6 depth. Rendering starts at the top or at a block's end.
    """
    layers = [Layer(width)]
    for stage in range(3):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(Layer(width * 2**stage, stride=stride))
            layers.append(Layer(width * 2**stage, skip=stride))
    return nrm(image_shape, layers, classes=classes, **options)
