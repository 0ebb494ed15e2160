"""The NRM paper's own numbers, and its sentences that can be checked."""

TABLE_1 = {
    "cifar10 (train)": (-55.47, -5.73, -5.839),
    "cifar10": (-55.63, -5.66, -5.846),
    "svhn_cropped": (-59.64, -8.16, -10.888),
    "celeb_a/scaled_0.8": (-58.69, -17.60, -8.008),
    "celeb_a/unit_scaled_0.8": (-58.69, -17.60, -8.008),
}
"""Means over three runs: log p(x), log p(z*|y*), minus the reconstruction loss at layer 6.

The paper says neither which range it multiplies CelebA by 0.8 in, nor what its "±" is over.
"""

RECONSTRUCTION = 0.032
"""Mean squared error of a pixel that Table 1 implies, at sigma = 1: 2 (55.6 - 5.7) / 3072."""
