"""Every experiment, at smoke size, as a user runs it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import bn_fashion_mnist, common, quickstart, speed
from jaxood import record

ROOT = Path(__file__).parents[1]


def command(*arguments):
    return [sys.executable, "-m", *map(str, arguments)]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("smoke") / "run"
    config = bn_fashion_mnist.Config(preset="smoke", out=out)
    return config, bn_fashion_mnist.main(config)


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
    names = {"neg_log_prob", "t_perm", "typicality", "batch_norm_delta", "batch_norm_rank"}
    assert {(r.ood, r.score) for r in made.results} == {(o, s) for o in judged for s in names}
    assert {(r.dataset, r.mode) for r in made.bpd} >= {
        ("digits", "evaluation"),
        ("digits/rotated", "training"),
    }
    sweep = [r.params["r2"] for r in made.sweeps if "contamination" not in r.params]
    assert sorted(set(sweep)) == [0.15, 0.3, 0.5, 0.9]
    assert all(0 <= r.auroc <= 1 and r.n_in == r.n_ood == 64 for r in made.results)
    written = record.Record.from_json((smoke[0].out / "results.json").read_text())
    assert written.results == made.results


def test_second_run_computes_nothing_again(smoke):
    config, first = smoke
    before = {p: p.stat().st_mtime_ns for p in (config.out / "model").rglob("*")}
    scores = (config.out / "scores.npz").read_bytes()
    again = bn_fashion_mnist.main(config)
    assert {p: p.stat().st_mtime_ns for p in (config.out / "model").rglob("*")} == before
    assert (config.out / "scores.npz").read_bytes() == scores
    assert again == first


def test_another_configuration_is_refused_and_nothing_is_lost(smoke):
    config, _ = smoke
    before = (config.out / "config.json").read_text()
    other = bn_fashion_mnist.Config(preset="smoke", out=config.out, seed=1)
    with pytest.raises(common.UsageError, match=r"seed = 0 \(now 1\)"):
        bn_fashion_mnist.main(other)
    assert (config.out / "config.json").read_text() == before


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(common.UsageError, match="not a run"):
        common.open_run(tmp_path, "quickstart", quickstart.Config())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_killed_at_any_moment_resumes_bit_for_bit(tmp_path):
    """SIGKILL at three random moments; then let it finish and compare with an unbroken run."""
    out = tmp_path / "run"
    line = command("experiments.bn_fashion_mnist", "--preset", "smoke", "--out", out)
    rng = random.Random(time.time_ns())
    for _ in range(3):
        process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL, env=one_device())
        time.sleep(rng.uniform(4, 20))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True, env=one_device())
    unbroken = tmp_path / "unbroken"
    line[-1] = str(unbroken)
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True, env=one_device())
    a, b = (np.load(p / "scores.npz") for p in (out, unbroken))
    assert a.keys() == b.keys()
    for name in a.keys():
        if not name.startswith("seconds/"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def one_device():
    return os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}


def test_quickstart_reports(tmp_path, capsys):
    made = quickstart.main(quickstart.Config(steps=4, out=tmp_path / "run"))
    assert made.models[0].steps == 4
    assert "report:" in capsys.readouterr().out
    html = (tmp_path / "run" / "report.html").read_text()
    assert "digits × 0.5" in html


def test_speed_compares_equal_computations(capsys):
    config = speed.Config(size=8, channels=8, blocks=2, batch_size=8, repeats=2)
    ratio, gap = speed.main(config)
    assert ratio > 0
    assert gap < 1e-4
    assert "speed-up" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["quickstart", "bn_fashion_mnist", "speed"])
def test_help_teaches(name):
    line = command(f"experiments.{name}", "--help")
    text = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for flag in ("--platform", "--data-dir", "--out", "--seed"):
        assert flag in text


def test_absent_accelerator_is_one_clear_sentence(tmp_path):
    line = command("experiments.quickstart", "--platform", "tpu", "--out", tmp_path / "run")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --platform tpu: JAX finds no TPU here")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_absent_data_is_one_clear_sentence(tmp_path):
    line = command("experiments.bn_fashion_mnist", "--data-dir", tmp_path, "--out", tmp_path / "o")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "fashion_mnist" in done.stderr
    assert "Traceback" not in done.stderr
