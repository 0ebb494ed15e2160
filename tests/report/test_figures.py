import io
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from jaxood.report import figures
from jaxood.report.figures import style as figure_style
from jaxood.report.record import ResultRow


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    return {
        "mnist": rng.normal(5, 1, 300),
        "fashion_mnist": rng.normal(0, 1, 400),
        "kmnist": rng.normal(1, 1, 200),
    }


def row(ood="mnist", score="neg_log_prob", **changes):
    fields = {
        "auroc": 0.7,
        "model": "realnvp",
        "in_dist": "fashion_mnist",
        "auroc_ci": (0.65, 0.75),
        "ap": 0.7,
        "fpr95": 0.5,
        "n_in": 10,
        "n_ood": 10,
    }
    return ResultRow(ood=ood, score=score, **fields | changes)


def legend_of(owner):
    return [text.get_text() for text in owner.get_legend().get_texts()]


def titles_of_legends(figure):
    return [axes.get_legend().get_title().get_text() for axes in figure.axes]


def colours(figure):
    return [patch.get_edgecolor() for patch in figure.axes[0].patches[1::2]]


def assert_png(figure, path):
    figures.save(figure, path)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 100


def test_histograms_start_with_the_trusted_set(values, tmp_path):
    figure = figures.score_histograms(values, "fashion_mnist", xlabel="log p(x), nats")
    axes = figure.axes[0]
    assert legend_of(axes) == ["Fashion-MNIST", "MNIST", "KMNIST"]
    assert axes.get_xlabel() == "log p(x), nats"
    assert len(axes.patches) == 6
    assert_png(figure, tmp_path / "histograms.png")


def test_sets_keep_their_colours_across_figures(values):
    few = {"fashion_mnist": values["fashion_mnist"], "mnist": values["mnist"]}
    first = colours(figures.score_histograms(values, "fashion_mnist", xlabel="score"))
    second = colours(figures.score_histograms(few, "fashion_mnist", xlabel="score"))
    assert second == first[:2]
    assert len(set(first)) == 3


def test_histograms_count_what_they_cannot_show(values, tmp_path):
    values["mnist"][:3] = [np.inf, -np.inf, np.nan]
    values["kmnist"][:] = np.inf
    figure = figures.score_histograms(values, "fashion_mnist", xlabel="score")
    assert legend_of(figure.axes[0])[1:] == ["MNIST (3 not shown)", "KMNIST (200 not shown)"]
    assert_png(figure, tmp_path / "infinite.png")


def test_a_logarithmic_histogram_leaves_out_what_is_not_positive(tmp_path):
    delta = {"digits": np.geomspace(1e-2, 1e4, 50), "other": np.array([0.0, 10, 100])}
    figure = figures.score_histograms(delta, "digits", xlabel="Δ, nats", log=True)
    assert figure.axes[0].get_xscale() == "log"
    assert legend_of(figure.axes[0]) == ["digits", "other (1 not shown)"]
    assert_png(figure, tmp_path / "log.png")


@pytest.mark.parametrize("log", [False, True])
def test_a_single_constant_set_is_drawn(log, tmp_path):
    figure = figures.score_histograms({"digits": np.ones(9)}, "digits", xlabel="score", log=log)
    assert legend_of(figure.axes[0]) == ["digits"]
    assert_png(figure, tmp_path / "constant.png")


def test_histograms_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="trusted set 'svhn' is not among"):
        figures.score_histograms({"digits": np.ones(3)}, "svhn", xlabel="score")
    with pytest.raises(ValueError, match="No value can be shown"):
        figures.score_histograms({"digits": np.full(3, np.inf)}, "digits", xlabel="score")


@pytest.mark.parametrize(("top", "scale"), [(50, "log"), (9.5, "linear")])
def test_bpd_against_ratio_labels_each_curve(top, scale, tmp_path):
    ratios = np.linspace(0, 1, 5)
    curves = {
        "mnist": (np.linspace(1.7, top, 5), np.full(5, 0.1)),
        "fashion_mnist": (np.full(5, 2.9), np.full(5, 0.01)),
    }
    figure = figures.bpd_against_ratio(ratios, curves, "fashion_mnist")
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == {"Fashion-MNIST", "MNIST"}
    assert axes.get_yscale() == scale
    assert axes.lines[0].get_color() == figure_style.IN_DIST
    assert_png(figure, tmp_path / "ratio.png")


def test_curve_labels_do_not_overlap():
    curves = {name: (np.full(2, 3.0), np.zeros(2)) for name in ("a", "b", "c")}
    figure = figures.bpd_against_ratio([0, 1], curves, "a")
    labels = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    offsets = sorted(text.xyann[1] for text in labels)
    assert np.all(np.diff(offsets) >= 11.9)


def test_roc_curves_have_a_panel_per_score_and_the_auroc_of_each_set(values, tmp_path):
    scores = {"neg_log_prob": values, "batch_norm_delta": {**values, "mnist": np.full(5, np.inf)}}
    figure = figures.roc_curves(scores, "fashion_mnist")
    first, second = figure.axes
    assert titles_of_legends(figure) == ["−log p(x)", "BatchNorm Δ"]
    assert len(first.lines) == 3
    assert legend_of(first)[0] == legend_of(second)[0] == "1.00"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MNIST", "KMNIST"]
    assert_png(figure, tmp_path / "roc.png")


def test_roc_curves_fold_many_scores_into_rows(values, tmp_path):
    figure = figures.roc_curves({f"score {k}": values for k in range(5)}, "fashion_mnist")
    assert_png(figure, tmp_path / "roc.png")
    with pytest.raises(ValueError, match="no score"):
        figures.roc_curves({}, "fashion_mnist")


def test_auroc_dots_show_runs_and_papers(tmp_path):
    rows = [
        row(),
        row(score="batch_norm_delta", auroc=1.0, auroc_ci=(0.99, 1.0), paper=1.0),
        row(ood="kmnist", auroc=None),
        row(ood="svhn", in_dist="cifar10", auroc_ci=(None, None)),
    ]
    figure = figures.auroc_dots(rows)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["RealNVP trained on Fashion-MNIST", "RealNVP trained on CIFAR-10"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "−log p(x)",
        "BatchNorm Δ",
        "reported in the paper",
    ]
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [np.asarray(line.get_xdata()).tolist() for line in hollow] == [[1.0]]
    assert_png(figure, tmp_path / "dots.png")
    with pytest.raises(ValueError, match="no AUROC"):
        figures.auroc_dots([row(auroc=None)])


def test_image_grid_shows_every_pixel_as_it_is(tmp_path):
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    colour = rng.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    figure = figures.image_grid(
        {"digits": grey, "svhn": colour}, columns=3, rows=2, captions={"svhn": ["2.1"] * 7}
    )
    first, second = figure.axes
    canvas = np.asarray(first.images[0].get_array())
    np.testing.assert_array_equal(canvas[:8, :8], np.repeat(grey[0], 3, axis=-1))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["digits", "SVHN"]
    assert len(second.texts) == 6
    assert_png(figure, tmp_path / "grid.png")


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 1)), np.zeros((2, 8, 8), np.uint8), np.zeros((0, 8, 8, 1), np.uint8)],
)
def test_image_grid_refuses_other_arrays(images):
    with pytest.raises(ValueError, match=r"uint8|at least one image"):
        figures.image_grid({"digits": images})


def test_training_curve_looks_past_the_steep_start(tmp_path):
    bpd = 3 + 0.1 * np.random.default_rng(2).normal(size=500)
    bpd[:4] = [900, 80, np.inf, np.nan]
    figure = figures.training_curve(bpd, smooth=20, steps=np.arange(500) * 10)
    axes = figure.axes[0]
    assert axes.get_ylim()[1] < 5
    assert legend_of(axes) == ["each step", "mean of 20 steps"]
    average = np.asarray(axes.lines[1].get_ydata())
    assert average[250] == pytest.approx(bpd[240:260].mean())
    assert_png(figure, tmp_path / "training.png")
    assert_png(figures.training_curve([2.0]), tmp_path / "one.png")
    with pytest.raises(ValueError, match="finite"):
        figures.training_curve([np.nan])


def test_p_value_calibration_marks_the_chosen_rates(tmp_path):
    p_values = np.arange(1, 101) / 100
    figure = figures.p_value_calibration(p_values, (0.05, 0.1))
    axes = figure.axes[0]
    assert axes.texts[0].get_text() == "p ≤ 0.05: 5.0 %\np ≤ 0.1: 10.0 %"
    assert "100 trusted images" in legend_of(axes)
    assert_png(figure, tmp_path / "p.png")
    assert_png(figures.p_value_calibration([0.5]), tmp_path / "one.png")
    for bad in ([], [1.5], [np.nan], [[0.5]]):
        with pytest.raises(ValueError, match="p_values"):
            figures.p_value_calibration(bad)


def test_names_are_text_not_mathematics(tmp_path):
    figure = figures.score_histograms({r"$\frac$": np.arange(9)}, r"$\frac$", xlabel="score")
    assert_png(figure, tmp_path / "dollar.png")


def test_saving_is_whole_and_reproducible(values, tmp_path):
    def bytes_of(path):
        figures.save(figures.score_histograms(values, "mnist", xlabel="score"), path)
        return path.read_bytes()

    first = bytes_of(tmp_path / "new folder" / "a.png")
    assert first == bytes_of(tmp_path / "new folder" / "a.png")
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["a.png"]
    with Image.open(io.BytesIO(first)) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_figures_leave_no_global_state(values):
    figure = figures.score_histograms(values, "mnist", xlabel="score")
    assert isinstance(figure, Figure)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
