"""Figures by layer: what is drawn is what was given."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxood.report.figures import layer_curves, layer_histograms
from jaxood.report.figures.style import IN_DIST

RNG = np.random.default_rng(0)
VALUES = {"svhn_cropped": RNG.normal(1, 1, (50, 7)), "cifar10": RNG.normal(0, 1, (40, 7))}


def test_a_panel_a_layer_and_every_image_counted():
    figure = layer_histograms(VALUES, "cifar10", xlabel="loss", columns=4)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == [f"layer {k}" for k in range(7)]
    for axes in panels:
        shares = [patch.get_data().values.sum() for patch in axes.patches]  # pyright: ignore
        # A fill and an outline each; 99 % of both sets together are in view.
        assert len(shares) == 4
        assert all(0.9 < share <= 1 for share in shares)
        assert to_hex(axes.patches[0].get_facecolor()) == IN_DIST
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["CIFAR-10", "SVHN"]


def test_a_layer_where_nothing_varies_is_drawn():
    layer_histograms({"cifar10": np.zeros((5, 2))}, "cifar10", xlabel="loss")


def test_curves_bands_and_chance():
    curves = {"cifar10": np.arange(3.0), "svhn_cropped": np.array([2.0, 0.0, 1.0])}
    bands = {name: (curve - 1, curve + 1) for name, curve in curves.items()}
    figure = layer_curves(curves, "cifar10", ylabel="on", first=1, chance=0.5, bands=bands)
    (axes,) = figure.axes
    drawn = {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines}
    np.testing.assert_array_equal(drawn["CIFAR-10"], [[1, 0], [2, 1], [3, 2]])
    np.testing.assert_array_equal(drawn["SVHN"][:, 1], curves["svhn_cropped"])
    assert {t.get_text() for t in axes.texts} == {"CIFAR-10", "SVHN"}
    assert len(axes.collections) == 2
    assert axes.lines[-1].get_ydata()[0] == 0.5  # pyright: ignore


@pytest.mark.parametrize(
    "draw",
    [
        lambda: layer_histograms(VALUES, "mnist", xlabel="loss"),
        lambda: layer_curves({"cifar10": [1.0]}, "mnist", ylabel="on"),
    ],
)
def test_the_trusted_set_must_be_there(draw):
    with pytest.raises(ValueError, match="'mnist' is not among"):
        draw()
