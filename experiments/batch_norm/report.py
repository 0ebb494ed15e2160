"""The BatchNorm test's figures and report."""

from pathlib import Path

import numpy as np

from experiments.batch_norm import paper as batch_norm_paper
from experiments.batch_norm.results import Results
from experiments.batch_norm.settings import R1, R2, RATIOS, Study
from jaxood import report
from jaxood.report import figures, record
from jaxood.report.labels import label

_MAIN_SCORES = ("neg_log_prob", "t_perm", "waic", "batch_norm_delta")


def draw(study: Study, results: Results, rows, samples, sets, losses, folder: Path):
    """Draw every figure of the report into ``folder``."""
    judged = (study.in_dist, *study.ood)

    def by_set(score):
        return {name: results.scores[name][score] for name in judged}

    def curve(name):
        values = [results.bpd(name, r) for r in RATIOS]
        mean = np.array([v.mean() for v in values])
        return mean, np.array([v.std(ddof=1) / np.sqrt(len(v)) for v in values])

    waic = ("waic",) if study.ensemble is not None else ("typicality",)
    curves = ("neg_log_prob", "t_perm", *waic, "batch_norm_delta")
    drawings = {
        "detection": figures.auroc_dots(
            [r for r in rows if r.score in curves and r.score != "typicality"]
        ),
        "likelihood": figures.score_histograms(
            {name: -results.bpd(name, 0) for name in judged},
            study.in_dist,
            xlabel="log p(x), evaluation mode (bits per dimension)",
        ),
        "delta": figures.score_histograms(
            by_set("batch_norm_delta"), study.in_dist, xlabel="Δ (nats)", log=True
        ),
        "ratio": figures.bpd_against_ratio(
            RATIOS, {name: curve(name) for name in judged}, study.in_dist
        ),
        "roc": figures.roc_curves(
            {s: by_set(s) for s in curves},
            study.in_dist,
        ),
        "p_values": figures.p_value_calibration(results.p_values, (0.05,)),
        "images": figures.image_grid({label(n): sets[n][:8] for n in judged}, rows=1),
        "samples": figures.image_grid(samples, rows=2),
        "training": figures.training_curve(losses),
    }
    for name, figure in drawings.items():
        figures.save(figure, folder / f"{name}.png")


def write(study: Study, results: Results, made: record.Record, out: Path):
    """Write record and report; returns the path of the page."""
    calibration, sizes = made.extra["calibration"], study.sizes
    low, high = calibration["realised_fpr_ci"]
    beyond = " and ".join(f"{100 * share:.1f} %" for share in calibration["delta_fpr"].values())
    table_5 = [row for row in made.sweeps if "contamination" not in row.params]
    mixed = [row for row in made.sweeps if "contamination" in row.params]
    in_dist = label(study.in_dist)
    main_rows = [r for r in made.results if r.score in _MAIN_SCORES]
    other_rows = [r for r in made.results if r.score not in _MAIN_SCORES]
    left_out = made.extra["absent"]
    missing = (
        f" Not to be had, and left out: {', '.join(map(label, left_out))}." if left_out else ""
    )
    stderr = np.median([results.delta(n, R1, R2).stderr for n in (study.in_dist, *study.ood)])

    def sweep_table(caption, rows, setting, heads):
        cells = {(r.ood, r.params[setting]): r for r in rows}
        values = sorted({r.params[setting] for r in rows})

        def cell(row):
            low, high = row.auroc_ci
            paper = f"\n(paper {row.paper:.2f})" if row.paper is not None else ""
            return f"{row.auroc:.3f}\n[{low:.3f}, {high:.3f}]{paper}"

        return report.Table(
            caption,
            ["OOD set", *(heads.format(v) for v in values)],
            [[label(ood), *(cell(cells[ood, v]) for v in values)] for ood in study.ood],
        )

    sections = [
        report.Section(
            "Which images do not belong?",
            f"Every set is {sizes.images} images, judged against {sizes.images} test images of "
            f"{in_dist}; higher scores mean more OOD, and 0.5 is guessing. Each set is scored on "
            f"its own. The last line judges {in_dist} against itself: 0.5, up to chance, and for Δ "
            "up to what the images of a set have in common, which makes its brackets too narrow. "
            "Brackets are 95 % intervals for independent images and this one training. The "
            "paper's numbers are for its own, longer-trained models." + missing,
            tables=[
                report.detection_table(main_rows, caption="AUROC (paper, Table 2)"),
                report.detection_table(other_rows, caption="AUROC of two more scores"),
            ],
            figures=[
                report.FigureFile(
                    "detection.png",
                    "AUROC with 95 % intervals; hollow marks are the paper's.",
                )
            ],
        ),
        report.Section(
            "What the likelihood says",
            "Under evaluation-mode BatchNorm a likelihood should be highest for the images that "
            "the model was trained on. Simple images get more of it.",
            tables=[
                report.bpd_table(
                    made.bpd,
                    caption="Mean bits per dimension in the two modes (paper, Table 1)",
                    paper=batch_norm_paper.bpd(study.in_dist, study.recipe.model),
                )
            ],
            figures=[
                report.FigureFile("likelihood.png", "log p(x) of each set (paper, Figure 1 left).")
            ],
        ),
        report.Section(
            "Batch mates give OOD images away",
            "In training mode, BatchNorm normalizes by the batch. As the share r of test images "
            "in a batch of otherwise trusted ones grows, the likelihood of OOD images moves, as a "
            "rule down; that of trusted images stays. Δ is the size of the move, here from "
            f"r = {R1} to r = {R2}, at b = {sizes.batch_size}, over {sizes.draws} paired draws "
            f"of companions and noise (median standard error of an image's Δ: {stderr:.1f} nats).",
            figures=[
                report.FigureFile("ratio.png", "Bits per dimension against r (paper, Figure 3)."),
                report.FigureFile("delta.png", "Δ of each set, on a logarithmic axis."),
                report.FigureFile("roc.png", "ROC curves of four scores."),
            ],
            tables=[
                sweep_table(
                    "AUROC of Δ with r1 → 0 against r2 (paper, Table 5)", table_5, "r2", "r2 = {}"
                )
            ],
        ),
        report.Section(
            "Decisions that can be trusted",
            f"p-values compare an image's −log p(x) with those of {calibration['null_images']} "
            f"held-out trusted images. On {calibration['n']} fresh trusted images they should be "
            f"uniform: a Kolmogorov–Smirnov test gives p = {calibration['ks_p_value']:.3f}. At a "
            "chosen false-positive rate of 5 % the realised one is "
            f"{100 * calibration['realised_fpr']:.1f} % (95 % interval {100 * low:.1f} to "
            f"{100 * high:.1f} %).\n\n"
            "Δ gives no such rate for an image: the images of a set share companions, and their "
            "scores move together. Of two trusted sets that arrived on their own, "
            f"{beyond} lie beyond the 95 % quantile of the calibration set. Δ judges sets: "
            "`detector.fit(..., set_size=n)` gives p-values of whole sets, which hold whatever "
            "moves together in them.",
            figures=[
                report.FigureFile(
                    "p_values.png",
                    "p-values of fresh trusted images by −log p(x), and 95 % band.",
                )
            ],
        ),
        report.Section(
            "When a test set holds both",
            "Everything above scores trusted images among trusted ones and OOD images among OOD "
            "ones, as the paper does. In a test set that mixes them, trusted images move as well, "
            "and OOD images have fewer of their own kind around them. Here the score has to tell "
            "the two apart inside one mixed set.",
            tables=[
                sweep_table(
                    f"AUROC of Δ (r1 → 0, r2 = {R2}) inside one set, by its share of OOD images",
                    mixed,
                    "contamination",
                    "{:.0%} OOD",
                )
            ],
        ),
        report.Section(
            "What the model saw, and what it draws",
            study.notes,
            figures=[
                report.FigureFile("images.png", "Images of each set."),
                report.FigureFile("samples.png", "Samples of the model at two temperatures."),
                report.FigureFile("training.png", "Training loss, in training mode."),
            ],
        ),
    ]
    return report.write(
        out, record=made, title=study.title, summary=results.headline(), sections=sections
    )
