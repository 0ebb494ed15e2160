"""What the NRM experiments train, and what they measure of it."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from experiments.lab.common import UsageError, load_ood
from experiments.lab.recipes import Fit, fit_or_load
from experiments.lab.store import Scores
from jaxood import data, parallel
from jaxood.data.augment import crop_and_flip
from jaxood.models.nrm import architectures as nrm_architectures
from jaxood.models.nrm.losses import LossWeights, nrm_loss
from jaxood.models.nrm.model import NRM
from jaxood.report.labels import label
from jaxood.scores import rendering
from jaxood.scores.rendering import Measurement
from jaxood.train import optimizers

Architecture = Literal["all_cnn_c", "convpool_cnn_c", "all_conv_13", "resnet"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One neural rendering model and its training.

    Attributes:
        architecture: of `jaxood.models.nrm.architectures`.
        width: channels of its first layers.
        batch_norm: with BatchNorm, folded for rendering.
        template: what the templates of all classes start with in common.
        temperature: of the softmax.
        weights: of the terms of the loss.
        steps: training steps.
        batch_size: images a step.
        algorithm: of the optimizer (`jaxood.train.optimizers`).
        learning_rate: its highest; of Muon, that of kernels.
        augment: crop and flip.
        labelled: share of the images whose labels are used.
    """

    architecture: Architecture = "all_cnn_c"
    width: int
    batch_norm: bool = False
    template: float = 1.0
    temperature: float = 1.0
    weights: LossWeights
    steps: int
    batch_size: int = 64
    algorithm: Literal["muon", "adam"] = "muon"
    learning_rate: float = 0.02
    augment: bool = False
    labelled: float = 1.0

    def build(self, image_shape, classes: int) -> NRM:
        """The model, for uint8 images ``(h, w, c)``."""
        make = getattr(nrm_architectures, self.architecture)
        return make(
            image_shape,
            classes=classes,
            width=self.width,
            batch_norm=self.batch_norm,
            template=self.template,
        )

    def optimizer(self):
        """Of optax."""
        return getattr(optimizers, self.algorithm)(self.steps, self.learning_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One trusted set, some models of it that differ in their seed, several OOD sets.

    Attributes:
        preset: name of the preset.
        recipe: the model and its training.
        in_dist: name of the trusted set.
        ood: names of the OOD sets, those of the paper's main claim first.
        main: how many of them the main claim is about.
        classes: sets of one class each, by name: (set, label).
        families: names of sets that are to look alike (the paper's Figure 4b).
        seeds: of the models.
        images: of each set.
        null_images: held-out trusted images to calibrate on.
        layer: whose features and reconstruction loss are shown (the paper's is 6).
    """

    preset: str
    recipe: Recipe
    in_dist: str
    ood: tuple[str, ...]
    main: int
    classes: Mapping[str, tuple[str, int]]
    families: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    images: int
    null_images: int
    layer: int = 6

    @property
    def null(self):
        """Name of the held-out trusted images that scores are calibrated on."""
        return f"{self.in_dist} (calibration)"

    @property
    def train(self):
        """Name of the images that were trained on."""
        return f"{self.in_dist} (train)"


class Images(NamedTuple):
    """A set of images.

    Attributes:
        images: uint8 ``(n, h, w, c)``.
        labels: int64 ``(n,)``, or None.
    """

    images: np.ndarray
    labels: np.ndarray | None

    def take(self, chosen) -> "Images":
        """Some of them."""
        return Images(self.images[chosen], None if self.labels is None else self.labels[chosen])


class Trained(NamedTuple):
    """A trained model."""

    model: NRM
    fit: Fit


def trained(
    recipe: Recipe, images: Images, *, seed: int, directory: Path, devices: int | None = None
) -> Trained:
    """Train, or go on with what ``directory`` holds, or load what is finished there.

    Args:
        recipe: what to train.
        images: with labels.
        seed: of everything.
        directory: for checkpoints.
        devices: to train and score on, of each process; all by default.

    Raises:
        UsageError: if the images have no labels.
    """
    if images.labels is None:
        raise UsageError("the NRM is trained on labelled images, and these have no labels")
    model, loss, optimizer = _programs(
        recipe, images.images.shape[1:], 1 + int(images.labels.max())
    )
    hidden = np.random.default_rng(seed).random(len(images.labels)) >= recipe.labelled
    labels = np.where(hidden, -1, images.labels).astype(np.int32)
    fit = fit_or_load(
        model,
        loss,
        (images.images, labels),
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        optimizer=optimizer,
        settings=dataclasses.asdict(recipe),
        statistics_batch=recipe.batch_size,
        seed=seed,
        directory=directory,
        devices=devices,
    )
    return Trained(model, fit)


@functools.lru_cache(4)
def _programs(recipe: Recipe, image_shape, classes: int):
    """Model, loss and optimizer: the same objects for every seed, so that each compiles once."""
    model = recipe.build(image_shape, classes)
    loss = nrm_loss(
        model,
        recipe.weights,
        temperature=recipe.temperature,
        augment=crop_and_flip if recipe.augment else None,
    )
    return model, loss, recipe.optimizer()


# -------------------------------------------------------------------------------------- the images


def load_sets(study: Study, *, seed: int, data_dir):
    """Training images; by name the sets to measure; and by name why a set is not to be had.

    Trusted images come in three sets: those to judge, from the test split, others of it to
    calibrate on, and some that are seen in training.

    Raises:
        DataError: without the trusted set, or without any OOD set.
        UsageError: if there are too few trusted images, or an OOD set has another shape.
    """
    rng, n = np.random.default_rng(seed), study.images
    train = Images(*data.load(study.in_dist, "train", data_dir))
    loaded = {study.in_dist: Images(*data.load(study.in_dist, "test", data_dir))}
    size = len(loaded[study.in_dist].images)
    if size < n + study.null_images:
        raise UsageError(
            f"{study.in_dist} has {size} test images, but {n + study.null_images} are needed: {n} "
            f"to judge and {study.null_images} to calibrate on"
        )
    judged, calibration, _ = np.split(rng.permutation(size), [n, n + study.null_images])
    sets = {
        study.in_dist: loaded[study.in_dist].take(judged),
        study.null: loaded[study.in_dist].take(calibration),
        study.train: train.take(rng.permutation(len(train.images))[:n]),
    }
    found, absent = load_ood(
        study.ood, trusted=study.in_dist, shape=train.images.shape[1:], data_dir=data_dir
    )
    for name, pair in found.items():
        loaded[name] = Images(*pair)
        sets[name] = loaded[name].take(rng.permutation(len(pair[0]))[:n])
    for name, (source, y) in study.classes.items():
        if source in loaded and loaded[source].labels is not None:
            chosen = np.flatnonzero(loaded[source].labels == y)[:n]
            if len(chosen):
                sets[name] = loaded[source].take(chosen)
    return train, sets, absent


# --------------------------------------------------------------------------------- measurements


def measured(
    trained: Trained, name: str, images, store: Scores, prefix: str, y=None
) -> Measurement:
    """One set, measured once.

    Args:
        trained: the model.
        name: of the set.
        images: uint8 ``(n, h, w, c)``.
        store: where arrays are kept.
        prefix: of their names there.
        y: classes to render from; by default the likeliest.
    """
    place = f"{prefix}/{name}/{'measured' if y is None else 'given'}"
    fields = [f for f in Measurement._fields if f != "sizes"]
    if f"{place}/label" not in store.arrays:
        print(f"measuring {len(images)} images: {label(name)}", flush=True)
        made = rendering.measure(
            trained.model,
            trained.fit.variables,
            images,
            y=y,
            batch_size=min(250, len(images)),
            show_progress=True,
        )
        store.put({f"{place}/{field}": getattr(made, field) for field in fields})
    sizes = np.array([np.prod(shape) for shape in trained.model.shapes])
    return Measurement(**{field: store.arrays[f"{place}/{field}"] for field in fields}, sizes=sizes)


def rendered(trained: Trained, images, y=None):
    """h(0) ``(n, h, w, c)`` of images, from y* or from ``y``, uint8 for the eye."""
    h = np.asarray(_render_program(trained.model)(parallel.local(trained.fit.variables), images, y))
    return np.rint((h + 1) * 127.5).clip(0, 255).astype(np.uint8)


@functools.lru_cache(4)
def _render_program(model):
    @jax.jit
    def render(variables, x, y):
        logits, _, latents = model.encode(variables, x)
        return model.render(variables, logits.argmax(1) if y is None else y, latents)[0]

    return render


def activations(trained: Trained, images, layer: int):
    """The highest activation of every feature of g(layer) over space: ``(n, c)``."""
    highest = _activation_program(trained.model, layer)
    variables = parallel.local(trained.fit.variables)
    batches = np.array_split(images, -(-len(images) // 250))
    return np.concatenate([np.asarray(highest(variables, b)) for b in batches])


@functools.lru_cache(4)
def _activation_program(model, layer):
    return jax.jit(lambda variables, x: model.encode(variables, x)[1][layer].max((1, 2)))
