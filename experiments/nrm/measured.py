"""Models of an NRM study: training, measuring sets, rendering images, and activations."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from experiments import lab
from experiments.nrm.results import Results
from experiments.nrm.sets import Sets
from experiments.nrm.settings import Study
from jaxood import nrm, parallel, scores
from jaxood.parallel.batches import in_batches
from jaxood.report import label
from jaxood.scores.nrm import Measurement
from jaxood.scores.nrm.measurement import sizes
from jaxood.train import Trained

CHUNK = 250
"""Images in one call of a program."""


def fitted(
    run: lab.Run,
    study: Study,
    sets: Sets,
    *,
    part: str = "seed",
    names: Mapping[int, str] | None = None,
    folder: Path | None = None,
) -> tuple[dict[int, Trained], Results]:
    """Train a model for each seed, and measure every set; go on with what the run holds.

    Args:
        run: keeps the models and the measurements.
        study: the recipe and the seeds.
        sets: the images.
        part: begins the names of the models' folders and of the measurements, before the seed.
        names: names of the models in the results record, by seed; others are left out of it.
        folder: holds the models, where that is not the run's own folder.

    Returns:
        The models by seed, and their results.
    """
    models, measurements, wrong = {}, {}, {}
    pixels = {name: chosen.images for name, chosen in sets.judged.items()}
    for seed in study.seeds:
        prefix = f"{part}_{seed}"
        trained = models[seed] = run.train(
            study.recipe,
            *sets.train,
            name=(names or {}).get(seed),
            in_dist=study.in_dist,
            seed=seed,
            directory=(folder or run.out) / prefix,
        )
        run.store.expect(lab.identity(pixels, **{prefix: trained.variables}))
        measurements[seed] = {
            name: measured(run.store, trained, name, images, prefix)
            for name, images in pixels.items()
        }
        own = measurements[seed][study.in_dist]
        other = (own.label + 1) % own.logits.shape[1]
        name = study.in_dist
        wrong[seed] = measured(run.store, trained, name, pixels[name], prefix, y=other)
    results = Results(study=study, sets=sets.judged, measurements=measurements, wrong=wrong)
    return models, results


def measured(
    store: lab.Scores,
    trained: Trained,
    name: str,
    images: np.ndarray,
    prefix: str,
    y: np.ndarray | None = None,
) -> Measurement:
    """Measure one set, once.

    Args:
        store: keeps the arrays.
        trained: the model.
        name: name of the set.
        images: uint8 ``(n, h, w, c)``.
        prefix: beginning of the arrays' names.
        y: classes to render from; by default the likeliest.
    """
    place = f"{prefix}/{name}/{'measured' if y is None else 'given'}"
    fields = [field for field in Measurement._fields if field != "sizes"]
    if f"{place}/label" not in store.arrays:
        print(f"measuring {len(images)} images: {label(name)}", flush=True)
        made = scores.nrm_measure(
            trained.model,
            trained.variables,
            images,
            y=y,
            batch_size=min(CHUNK, len(images)),
            show_progress=True,
        )
        store.put({f"{place}/{field}": getattr(made, field) for field in fields})
    kept = {field: store.arrays[f"{place}/{field}"] for field in fields}
    return Measurement(**kept, sizes=sizes(trained.model))


# ------------------------------------------------------------------- for figures, on one process


def rendered(trained: Trained, images: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    """Render images from y* or from ``y``, uint8 ``(n, h, w, c)`` for the eye."""
    program = _render_program(trained.model)
    h = np.asarray(program(parallel.local(trained.variables), images, y))
    return np.rint((h + 1) * 127.5).clip(0, 255).astype(np.uint8)


@functools.lru_cache(4)
def _render_program(model):
    return jax.jit(lambda variables, x, y: nrm.explain(model, variables, x, y=y).rendered[0])


def activations(trained: Trained, images: np.ndarray, layer: int) -> np.ndarray:
    """Find the highest activation of every feature of g(layer) over space: ``(n, c)``."""
    program, variables = (
        _activation_program(trained.model, layer),
        parallel.local(trained.variables),
    )
    return in_batches(
        lambda x: program(variables, x),
        images,
        parallel.mesh_of(variables),
        batch_size=min(CHUNK, len(images)),
    )


@functools.lru_cache(4)
def _activation_program(model, layer):
    return jax.jit(lambda variables, x: model.encode(variables, x)[1][layer].max((1, 2)))
