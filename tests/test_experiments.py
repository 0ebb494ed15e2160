"""Experiments as a user runs them: one in depth, and what all of them share."""

import json
import random
import re
import runpy
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, command

from experiments import bn_fashion_mnist, common, quickstart, screen, speed
from experiments.batch_norm_study import Config
from jaxood import record


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run):
    out = tmp_path_factory.mktemp("smoke") / "run"
    run("experiments.bn_fashion_mnist", "--preset", "smoke", "--out", out)
    made = record.Record.from_json((out / "results.json").read_text())
    return Config(preset="smoke", out=out), made


def test_run_folder_holds_what_the_design_says(smoke):
    out = smoke[0].out
    files = {p.name for p in out.iterdir()}
    assert files >= {"config.json", "results.json", "scores.npz", "report.md", "report.html"}
    figures = {p.stem for p in (out / "figures").glob("*.png")}
    assert figures >= {"likelihood", "ratio", "roc", "samples", "detection"}
    assert json.loads((out / "results.json").read_text())["schema"] == 1


def test_record_holds_every_score_of_every_set(smoke):
    made = smoke[1]
    judged = {"digits/rotated", "digits/scaled_0.5", "digits (control)"}
    names = {"neg_log_prob", "t_perm", "typicality", "waic"}
    names |= {"batch_norm_delta", "batch_norm_rank"}
    assert {(r.ood, r.score) for r in made.results} == {(o, s) for o in judged for s in names}
    assert {(r.dataset, r.mode) for r in made.bpd} >= {
        ("digits", "evaluation"),
        ("digits/rotated", "training"),
    }
    sweep = [r.params["r2"] for r in made.sweeps if "contamination" not in r.params]
    assert sorted(set(sweep)) == [0.15, 0.3, 0.5, 0.9]
    assert all(0 <= r.auroc <= 1 and r.n_in == r.n_ood == 32 for r in made.results)


def test_second_run_computes_nothing_again(smoke, run):
    out = smoke[0].out
    before = {p: p.stat().st_mtime_ns for p in [*(out / "model").rglob("*"), out / "scores.npz"]}
    results = (out / "results.json").read_text()
    done = run("experiments.bn_fashion_mnist", "--preset", "smoke", "--out", out)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (out / "results.json").read_text() == results
    assert "training" not in done.stderr


def test_another_configuration_is_refused_and_nothing_is_lost(smoke):
    config, _ = smoke
    before = (config.out / "config.json").read_text()
    other = Config(preset="smoke", out=config.out, seed=1)
    with pytest.raises(common.UsageError, match=r"seed = 0 \(now 1\)"):
        bn_fashion_mnist.main(other)
    assert (config.out / "config.json").read_text() == before


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(common.UsageError, match="not a run"):
        common.open_run(tmp_path, "quickstart", quickstart.Config())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_killed_at_any_moment_resumes_bit_for_bit(smoke, tmp_path, run, environment):
    """SIGKILL at a random moment; then let it finish and compare with the unbroken run."""
    out = tmp_path / "run"
    line = ("experiments.bn_fashion_mnist", "--preset", "smoke", "--out", out)
    process = subprocess.Popen(
        command(*line),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    time.sleep(random.Random(time.time_ns()).uniform(4, 15))
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(*line)
    broken, unbroken = (np.load(p / "scores.npz") for p in (out, smoke[0].out))
    assert broken.keys() == unbroken.keys()
    for name in unbroken:
        if not name.startswith("seconds/"):
            np.testing.assert_array_equal(broken[name], unbroken[name], err_msg=name)


def test_a_finished_run_screens_images_and_resumes(smoke, tmp_path, run):
    out = tmp_path / "screened"
    line = ("experiments.screen", "--run", smoke[0].out, "--images", "digits", "--out", out)
    line += ("--calibration", 300, "--set-size", 64, "--score", "batch_norm_delta")
    done = run(*line)
    assert f"report: {out / 'report.html'}" in done.stdout
    assert "of 299 images are reported" in done.stdout  # of 599, 300 were calibrated on
    whole = (out / "scores.csv").read_bytes()
    assert whole.count(b"\n") == 1 + 599
    assert (out / "report.html").read_text().count("<img") == len(list((out / "figures").iterdir()))
    (out / "scores.csv").write_bytes(whole[: len(whole) // 2])
    run(*line)
    assert (out / "scores.csv").read_bytes() == whole


def test_only_a_finished_run_screens(smoke, tmp_path):
    def refused(run, images="digits"):
        config = screen.Config(run=run, images=images, out=tmp_path / "screened")
        with pytest.raises(common.UsageError) as caught:
            screen.main(config)
        return str(caught.value)

    assert "is not the folder of a run of quickstart, bn_fashion_mnist" in refused(tmp_path)
    settings = (smoke[0].out / "config.json").read_text()
    (tmp_path / "config.json").write_text(settings)
    assert "has not finished its training" in refused(tmp_path)
    assert "give images of that shape" in refused(smoke[0].out, "photos")
    assert not (tmp_path / "screened").exists()


def test_speed_compares_equal_computations(capsys):
    speed.main(speed.Config(size=4, channels=4, blocks=1, batch_size=8, repeats=2))
    last = capsys.readouterr().out.splitlines()[-1]
    match = re.fullmatch(r"speed-up (\S+), relative difference of the losses (\S+)", last)
    assert match
    ratio, gap = map(float, match.groups())
    assert ratio > 0
    assert gap < 1e-4


@pytest.mark.parametrize(
    "name",
    [p.stem for p in (ROOT / "experiments").glob("*.py") if "common.run(main" in p.read_text()],
)
def test_help_teaches(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, f"experiments.{name}", raising=False)  # runpy would warn
    with pytest.raises(SystemExit) as done:
        runpy.run_module(f"experiments.{name}", run_name="__main__")
    assert done.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--platform", "--data-dir", "--out", "--seed"):
        assert flag in text


def test_absent_accelerator_is_one_clear_sentence(tmp_path, run):
    done = run(
        "experiments.quickstart", "--platform", "tpu", "--out", tmp_path / "run", check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --platform tpu: JAX finds no TPU here")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_absent_data_is_one_clear_sentence(tmp_path, run):
    line = ("experiments.bn_fashion_mnist", "--data-dir", tmp_path, "--out", tmp_path / "out")
    done = run(*line, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "fashion_mnist" in done.stderr
    assert "Traceback" not in done.stderr
