"""Every experiment that test_experiments.py does not take, at smoke size, as a user runs it."""

import pytest

from jaxood.report import record


@pytest.mark.parametrize(
    ("name", "arguments", "models"),
    [
        ("bn_cifar", ("--model", "pixelcnn", "--no-waic"), {("pixelcnn", "digits")}),
        (
            "fooling",
            ("--model", "realnvp"),
            {("realnvp", "digits"), ("realnvp", "digits/scaled_0.5")},
        ),
        ("toy", (), {("realnvp", "digits")}),
        (
            "nrm_cifar",
            ("--models", "2", "--no-negativity"),
            {("nrm, seed 0", "photos"), ("nrm, seed 1", "photos")},
        ),
        ("glow_cifar", (), {("glow", "photos"), ("vae", "photos"), ("nrm", "photos")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_experiment_writes_its_record_report_and_figures(name, arguments, models, tmp_path, run):
    out = tmp_path / "run"
    done = run(f"experiments.{name}", *arguments, "--preset", "smoke", "--out", out)
    assert f"report: {out / 'report.html'}" in done.stdout
    made = record.Record.from_json((out / "results.json").read_text())
    assert made.experiment == name
    assert {(row.name, row.in_dist) for row in made.models} == models
    assert made.results
    page = (out / "report.html").read_text()
    figures = list((out / "figures").glob("*.png"))
    assert figures
    assert page.count("<img") == len(figures)


def test_ablation_compares_variants(tmp_path, run):
    run("experiments.nrm_ablation", "--preset", "smoke", "--out", tmp_path / "run")
    made = record.Record.from_json((tmp_path / "run" / "results.json").read_text())
    variants = {"the recipe", "no path normalization"}
    assert made.extra["quality"].keys() == variants
    assert {row.params["variant"] for row in made.sweeps} == variants
