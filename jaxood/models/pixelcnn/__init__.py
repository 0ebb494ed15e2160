"""PixelCNN++ as the BatchNorm paper uses it: the network, and how it samples."""

from jaxood.models.pixelcnn.network import pixelcnn

__all__ = ["pixelcnn"]
