"""PixelCNN++ of the BatchNorm paper: layers, network, and sampling from cached activations."""

from jaxood.models.pixelcnn.network import pixelcnn

__all__ = ["pixelcnn"]
