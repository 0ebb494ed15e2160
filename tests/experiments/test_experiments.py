"""Experiments as a user runs them: one of them in depth, and the parts that all share."""

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
from scipy.stats import betabinom

from experiments import bn_fashion_mnist, lab, quickstart, realised_rates, screen
from experiments.batch_norm.settings import Config
from experiments.lab import Scores
from experiments.lab.folder import close_folders
from experiments.screening.realised_rates import realised
from jaxood import detector, integrity
from jaxood.report import record
from tests.helpers import ROOT, command


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
    assert all(r.n_in == r.n_ood == 32 for r in made.results)


def test_record_says_what_the_stored_likelihoods_say(smoke):
    """Every AUROC and likelihood is computed again, from scores.npz by the papers' formulas."""
    config, made = smoke
    stored = Scores(config.out / "scores.npz").arrays
    prefix = "log_prob/"
    sets = {n.removeprefix(prefix): v for n, v in stored.items() if n.startswith(prefix)}
    ratio = {r: i for i, r in enumerate((0.0, 0.1, 0.15, 0.3, 0.5, 0.9, 1.0))}

    def delta(name, r1, r2):
        values = np.asarray(sets[name], np.float64)
        return np.abs((values[:, ratio[r1]] - values[:, ratio[r2]]).mean(0)).astype(np.float32)

    def score(name, kind):
        log_prob = {n: values[:, 0].mean(0) for n, values in sets.items()}
        null, own = log_prob["digits (calibration)"], log_prob[name]
        members = np.asarray(stored[f"ensemble/{name}"], np.float64)
        return {
            "neg_log_prob": -own,
            "t_perm": np.abs((null[:, None] <= own).sum(0) - 16),
            "typicality": np.abs(own - null.mean()),
            "waic": (members.var(0) - members.mean(0)).astype(np.float32),
            "batch_norm_delta": delta(name, 0.1, 0.9),
            "batch_norm_rank": (
                delta("digits (calibration)", 0.1, 0.9)[:, None] <= delta(name, 0.1, 0.9)
            ).sum(0),
        }[kind]

    def auroc(trusted, ood):
        return np.mean((trusted[:, None] < ood) + (trusted[:, None] == ood) / 2)

    for r in made.results:
        want = auroc(score("digits", r.score), score(r.ood, r.score))
        assert r.auroc == pytest.approx(want, abs=1e-12), (r.ood, r.score)
        assert r.auroc_ci[0] < r.auroc <= r.auroc_ci[1]
    for r in made.sweeps:
        if (share := r.params.get("contamination")) is None:
            trusted, ood = (delta(n, 0.0, r.params["r2"]) for n in ("digits", r.ood))
        else:
            trusted, ood = np.split(stored[f"delta/{r.ood}/{share}"], [32 - round(32 * share)])
        assert r.auroc == pytest.approx(auroc(trusted, ood), abs=1e-12), (r.ood, r.params)
    for r in made.bpd:
        log_prob = sets[r.dataset][:, {"evaluation": 0, "training": -1}[r.mode]]
        bits = -np.asarray(log_prob, np.float64).mean(0) / (64 * np.log(2))
        assert r.bpd == pytest.approx(bits.mean(), rel=1e-6)
        assert r.stderr == pytest.approx(bits.std(ddof=1) / np.sqrt(32), rel=1e-5)


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
    with pytest.raises(lab.UsageError, match=r"seed = 0 \(now 1\)"):
        bn_fashion_mnist.main(other)
    assert (config.out / "config.json").read_text() == before


@pytest.fixture
def runs_end():
    """Unlock the folders that a test opens in this process, as `lab.main` does."""
    yield
    close_folders()


def is_locked(folder):
    try:
        with integrity.lock(folder):
            return False
    except integrity.Locked:
        return True


@pytest.mark.usefixtures("runs_end")
def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(lab.UsageError, match="not a run"):
        lab.begin(quickstart.Config(), "quickstart", tmp_path)
    with pytest.raises(lab.UsageError, match="is a file"):
        lab.begin(quickstart.Config(), "quickstart", tmp_path / "thesis.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    assert not is_locked(tmp_path)


@pytest.mark.usefixtures("runs_end")
def test_a_run_that_was_killed_while_its_settings_were_written_begins_anew(tmp_path):
    (tmp_path / ".config.json.123").write_text('{"exper')
    lab.begin(quickstart.Config(), "quickstart", tmp_path)
    assert lab.read_settings(tmp_path)["experiment"] == "quickstart"


@pytest.mark.usefixtures("runs_end")
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xff", b"{", b"[]", b"3", b"[" * 100_000])
def test_settings_that_cannot_be_read_are_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(integrity.Damaged, match=r"config\.json .*: choose another folder"):
        lab.begin(quickstart.Config(), "quickstart", tmp_path)
    assert not is_locked(tmp_path)
    with pytest.raises(lab.UsageError, match=r"--trusted-run .* no config\.json that can be read"):
        lab.finished_part(tmp_path, "--trusted-run", {"experiment": "bn_cifar"}, "model")
    assert (tmp_path / "config.json").read_bytes() == content


def test_one_process_may_open_its_run_again_and_no_other_may_until_the_run_ends(
    tmp_path, monkeypatch, capsys
):
    def main(config):
        for _ in range(2):
            lab.begin(config, "quickstart", tmp_path / "run")
        assert is_locked(tmp_path / "run")
        with pytest.raises(lab.UsageError, match=r"preset = small \(now smoke\)"):
            lab.begin(quickstart.Config(preset="smoke"), "quickstart", tmp_path / "run")
        assert is_locked(tmp_path / "run")

    monkeypatch.setattr(sys, "argv", ["quickstart"])
    for _ in range(2):
        lab.main(main, quickstart.Config, "")
        assert not is_locked(tmp_path / "run")
    with integrity.lock(tmp_path / "run"), pytest.raises(SystemExit) as refused:
        lab.main(main, quickstart.Config, "")
    assert str(refused.value).startswith("error: another process writes to ")


def test_killed_at_any_moment_resumes_bit_for_bit(smoke, tmp_path, run, environment):
    """A second process on the folder is refused; the first is killed at a random moment.

    The result is that of a run alone and unbroken.
    """
    out = tmp_path / "run"
    line = ("experiments.bn_fashion_mnist", "--preset", "smoke", "--out", out)
    process = subprocess.Popen(
        command(*line),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    while not (out / "config.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    refused = run(*line, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: another process writes to {out} at this moment: ")
    assert refused.stderr.count("\n") == 1
    process.send_signal(signal.SIGCONT)
    time.sleep(random.Random(time.time_ns()).uniform(0, 11))
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(*line)
    broken, unbroken = (Scores(p / "scores.npz").arrays for p in (out, smoke[0].out))
    assert broken.keys() == unbroken.keys()
    for name in unbroken:
        if not name.startswith("seconds/"):
            np.testing.assert_array_equal(broken[name], unbroken[name], err_msg=name)


def test_a_finished_run_screens_images_and_resumes(smoke, tmp_path, run):
    out = tmp_path / "screened"
    line = ("experiments.screen", "--run", smoke[0].out, "--images", "digits", "--out", out)
    line += ("--calibration", 300, "--set-size", 64, "--score", "batch_norm_delta")
    line += ("--false-positive-rate", 0.2)
    done = run(*line)
    assert f"report: {out / 'report.html'}" in done.stdout
    # 300 of the 599 were calibrated on, in 4 sets; 10 sets hold the places of all.
    assert "of 10 sets of 64 images are reported" in done.stdout
    assert "300 more images were calibrated on" in done.stdout
    whole = (out / "scores.csv").read_bytes()
    assert whole.count(b"\n") == 1 + 599
    assert (out / "report.html").read_text().count("<img") == len(list((out / "figures").iterdir()))
    (out / "scores.csv").write_bytes(whole[: len(whole) // 2])
    run(*line)
    assert (out / "scores.csv").read_bytes() == whole


def test_realised_rates_are_those_of_splits(smoke, capsys):
    config = realised_rates.Config(
        run=smoke[0].out, ood="digits/rotated", images=256, splits=4, sizes=(32,), devices=1
    )
    table = realised_rates.main(config)
    names = list(table.columns[0].cells)
    assert len(names) == 3 + 2 + 3 and names[3] == "sets of 32 by Δ, shuffled and dealt"
    assert list(table.columns[1].cells)[3] == "20.0 %"  # 4 sets of 8 are calibrated on
    assert list(table.columns[4].cells)[5:] == ["no promise"] * 3


def test_a_rate_that_is_kept_is_told_from_one_that_is_not():
    """Independent scores keep the rate; scores of which half are higher do not keep it."""
    rng = np.random.default_rng(0)
    found = realised(rng.random(2000), 0.05, 400, rng)
    low, high = betabinom.interval(0.99, 1000, 50, 951)
    assert np.mean((low <= found.reported) & (found.reported <= high)) > 0.98
    assert abs(found.reported.mean() / 1000 - 0.05) < 0.005
    null, fresh = rng.random(1000), rng.random(1000) + (rng.random(1000) < 0.5)
    assert np.sum(detector.p_values_of(fresh, null) <= 0.05) > high


def test_only_a_finished_run_screens(smoke, tmp_path):
    def refused(run, images="digits"):
        config = screen.Config(run=run, images=images, out=tmp_path / "screened")
        with pytest.raises(lab.UsageError) as caught:
            screen.main(config)
        return str(caught.value)

    assert "is not the folder of a run of quickstart, bn_fashion_mnist" in refused(tmp_path)
    settings = (smoke[0].out / "config.json").read_text()
    (tmp_path / "config.json").write_text(settings)
    assert "has not finished its training" in refused(tmp_path)
    assert "give images of that shape" in refused(smoke[0].out, "photos")
    assert not (tmp_path / "screened").exists()


@pytest.mark.parametrize(
    "name",
    [
        p.stem
        for p in (ROOT / "experiments").glob("*.py")
        if re.search(r"(common\.run|lab\.main)\(", p.read_text())
    ],
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
