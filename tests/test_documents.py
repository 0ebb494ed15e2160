"""The Python of README.md and CONTRIBUTING.md runs as it stands, on embedded images."""

import re
import runpy
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxood
from jaxood.density import build
from jaxood.scores import score as score_module
from tests.helpers import ROOT


def examples(document):
    """The Python blocks of a document, by the title of their section."""
    found = {}
    for section in (ROOT / document).read_text(encoding="utf-8").split("\n## ")[1:]:
        blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        if blocks:
            found[section.split("\n", 1)[0]] = blocks
    return found


CONTRIBUTING = examples("CONTRIBUTING.md")


def run(block, **names):
    """Run an example, and return what its names mean then."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "example.py"
        file.write_text(block, encoding="utf-8")
        return runpy.run_path(str(file), names)


@pytest.fixture
def digits():
    return jaxood.data.load("digits", "train")


@pytest.mark.parametrize("title", ["Add a model", "Add a score", "Add a data set"])
def test_examples_are_short(title):
    (block,) = CONTRIBUTING[title]
    assert len(block.splitlines()) <= 30


def test_the_model_of_contributing_is_a_density_model(digits):
    (block,) = CONTRIBUTING["Add a model"]
    images = digits[0][:64]
    model = run(block)["pixel_gaussian"]((1, 2, 1))
    variables = model.init(jax.random.key(0), images)
    # Every image of two pixels, at the centres of its levels: the masses of a smooth density.
    every = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).reshape(-1, 1, 2, 1)
    variables["params"]["log_std"] = jnp.full((1, 2, 1), 2.5)
    total = jnp.exp(model.log_prob(variables, every.astype(np.uint8))).sum()
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert model.sample(variables, jax.random.key(0), 3).shape == (3, 1, 2, 1)
    again = build(model.spec)
    np.testing.assert_array_equal(
        again.log_prob(variables, every[:9].astype(np.uint8)),
        model.log_prob(variables, every[:9].astype(np.uint8)),
    )


def test_the_score_of_contributing_goes_into_a_detector(digits, monkeypatch):
    (block,) = CONTRIBUTING["Add a score"]
    monkeypatch.setattr(score_module, "_KINDS", dict(score_module._KINDS))
    images = digits[0]
    score = run(block)["brightness"](images[:300])
    detector = jaxood.detector.fit(score, images[300:500])
    assert jaxood.detector.decide(detector, 255 - images[500:600]).mean() > 0.9


def test_the_data_set_of_contributing_is_prepared_when_it_is_read(tmp_path, monkeypatch):
    (block,) = CONTRIBUTING["Add a data set"]
    monkeypatch.setattr("jaxood.data.registry.DATASETS", jaxood.data.DATASETS)
    try:
        run(block)
        (tmp_path / "leaves").mkdir()
        Image.new("RGB", (40, 30), (30, 60, 90)).save(tmp_path / "leaves" / "one.png")
        images, _ = jaxood.data.load("leaves", data_dir=tmp_path)
    finally:
        jaxood.data.DATASETS.pop("leaves", None)
    assert images.shape == (1, 16, 16, 1)
    assert (images == 54).all()  # 0.299 * 30 + 0.587 * 60 + 0.114 * 90 is 54.45


def test_the_readme_fits_calibrates_and_judges(tmp_path, monkeypatch):
    """Smaller numbers of steps and images stand in for those of the page; the calls are its own."""
    (images, labels), (test, _) = (jaxood.data.load("photos", split) for split in ("train", "test"))
    assert labels is not None
    images, labels, test = images[::2, :10, :10], labels[::2], test[::2, :10, :10]
    np.savez(tmp_path / "trusted.npz", images=images)
    np.savez(tmp_path / "new.npz", images=test[::4] // 2)
    np.savez(tmp_path / "labelled.npz", x_train=images[::8], y_train=labels[::8], x_test=test[1::8])
    monkeypatch.chdir(tmp_path)
    blocks = examples("README.md")
    text = "\n".join([*blocks["On your own images"]])
    for page, here in (
        ("path/to/trusted", "trusted.npz"),
        ("path/to/new", "new.npz"),
        ("path/to/labelled", "labelled.npz"),
        ("width=32, depth=4", "width=4, depth=1"),
        ("width=96", "width=4"),
        ("steps=5000", "steps=4"),
        ("steps=10_000", "steps=4"),
        ("-1000", "-700"),
    ):
        assert page in text
        text = text.replace(page, here)
    names = run(text)
    n = len(test[::4])
    assert names["suspects"].shape == names["in_suspect_sets"].shape == (n,)
    assert (tmp_path / "scores.csv").read_text().count("\n") == n + 1
    assert names["detector"].score.name == "nrm_profile"

    (modes,) = blocks["What is in it"]
    score = names["detector"].score
    run(modes, jnp=jnp, model=score.model, variables=score.variables, x=test[:4], trusted=test[4:8])
