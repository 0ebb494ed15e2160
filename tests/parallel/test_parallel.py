"""Eight devices give what one gives, and two processes give what one gives."""

import re
import socket
import subprocess
import time

import chex
import jax
import numpy as np
import optax
import pytest

from experiments import lab, quickstart
from experiments.lab import Scores
from jaxood import nrm, parallel, scores, train
from jaxood.parallel import processes
from tests.helpers import ROOT, command, initial


def on(devices, tree):
    return parallel.replicate(tree, parallel.mesh(devices))


def close_to_largest(a, b, tolerance=1e-5):
    """Assert that two pytrees are equal up to a share of the largest number in the first."""
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(a))
    chex.assert_trees_all_close(
        jax.tree.map(np.asarray, a), jax.tree.map(np.asarray, b), rtol=0, atol=tolerance * largest
    )


# ---------------------------------------------------------------------------------- many devices


def one_update(loss, variables, data, devices):
    """Take one step against the gradient; return the state after it, and the gradient."""
    before = variables["params"]
    state = train.fit(
        loss,
        on(devices, variables),
        data,
        steps=1,
        batch_size=24,
        optimizer=optax.sgd(1.0),
        show_progress=False,
    )
    assert len(state.losses.sharding.device_set) == devices
    return state, jax.tree.map(lambda a, b: np.asarray(a) - b, before, state.params)


def assert_same_update(loss, variables, data):
    (one, gradient), (eight, same) = (one_update(loss, variables, data, d) for d in (1, 8))
    np.testing.assert_allclose(one.losses, eight.losses, rtol=1e-5)
    close_to_largest(gradient, same)
    close_to_largest(one.batch_stats, eight.batch_stats)


def test_training_step_of_a_flow_is_the_same_on_eight_devices(flow):
    """Losses, gradients and statistics agree; the 250 images do not divide by the devices."""
    assert_same_update(train.neg_log_prob_loss(flow.model), flow.variables, flow.images[:250])


@pytest.fixture(scope="module")
def small_nrm(flow):
    layers = [nrm.Layer(4), nrm.Layer(6, stride=2)]
    model = nrm.nrm((8, 8, 1), layers, classes=4, batch_norm=True)
    return model, initial(model.init, flow.images)


def test_training_step_of_a_classifier_is_the_same_on_eight_devices(flow, small_nrm):
    model, variables = small_nrm
    images = flow.images[:50]
    labels = np.arange(50, dtype=np.int32) % 4
    assert_same_update(nrm.loss(model, nrm.LossWeights()), variables, (images, labels))


def test_population_statistics_are_the_same_on_eight_devices(flow):
    one, eight = (
        train.population_statistics(
            flow.model, on(d, flow.variables), flow.images[:50], batch_size=24, show_progress=False
        )
        for d in (1, 8)
    )
    close_to_largest(one, eight)


def test_scores_are_the_same_on_eight_devices_in_all_modes(flow):
    """All modes agree; the number of batches is not a multiple of the number of devices."""
    one, eight = (
        scores.mixed_log_prob(
            flow.model,
            on(d, flow.variables),
            flow.images[:37],
            flow.images[100:150],
            (0, 0.3, 1),
            key=jax.random.key(1),
            batch_size=8,
            draws=2,
        )
        for d in (1, 8)
    )
    np.testing.assert_allclose(one, eight, rtol=1e-5)


def test_plain_variables_mean_one_device(flow):
    assert parallel.mesh_of(flow.variables).size == 1
    x, key = flow.images[:11], jax.random.key(1)
    plain, eight = (
        scores.log_prob(flow.model, variables, x, key=key, batch_size=4)
        for variables in (flow.variables, on(8, flow.variables))
    )
    np.testing.assert_allclose(plain, eight, rtol=1e-5)


def test_rendering_is_the_same_on_eight_devices(flow, small_nrm):
    model, variables = small_nrm
    one, eight = (
        scores.nrm_measure(model, on(d, variables), flow.images[:11], batch_size=2) for d in (1, 8)
    )
    for a, b in zip(one, eight, strict=True):
        close_to_largest(a, b)


def test_rows_are_dealt_out_and_only_ones_own_are_read():
    class Rows:
        shape, read = (11, 2), []

        def __len__(self):
            return 11

        def __getitem__(self, rows):
            self.read.append(rows)
            return np.arange(22, dtype=np.float32).reshape(11, 2)[rows]

    rows = Rows()
    dealt = parallel.shard(rows, parallel.mesh(4))
    assert [(r.start, r.stop) for r in sorted(rows.read, key=lambda r: r.start)] == [
        (0, 3), (3, 6), (6, 9), (9, 12),
    ]  # fmt: skip
    np.testing.assert_array_equal(dealt[:11], np.arange(22).reshape(11, 2))
    np.testing.assert_array_equal(dealt[11:], 0)


def test_a_batch_that_devices_cannot_share_is_refused(flow):
    with pytest.raises(ValueError, match="24 images cannot be shared evenly among 5 devices"):
        train.fit(
            train.neg_log_prob_loss(flow.model),
            on(5, flow.variables),
            flow.images,
            steps=1,
            batch_size=24,
            show_progress=False,
        )


def test_more_devices_than_there_are_is_one_clear_sentence():
    with pytest.raises(lab.UsageError, match=r"--devices 9: .* 1 to 8 CPU"):
        lab.start(quickstart.Config(devices=9))


# -------------------------------------------------------------------------------- many processes


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"coordinator": "here:1"}, "give the coordinator, the number"),
        ({"processes": 2}, "give the coordinator, the number"),
        ({"coordinator": "here", "processes": 2, "process_id": 0}, "host:port"),
        ({"coordinator": "::1:1234", "processes": 2, "process_id": 0}, "host:port"),
        ({"coordinator": "here:1", "processes": 2, "process_id": 2}, "from 0 to 1"),
        ({"coordinator": "203.0.113.7:1234", "processes": 2, "process_id": 0}, "cannot listen"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, said):
    with pytest.raises(lab.UsageError, match=said):
        lab.start(quickstart.Config(**flags))


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, True),
    ],
)
def test_a_cluster_is_found_only_where_there_is_one(environment, several, monkeypatch):
    joined = []
    monkeypatch.setattr(processes.os, "environ", environment)
    monkeypatch.setattr(processes.signal, "signal", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: joined.append(a))
    parallel.start()
    assert joined == [(None, None, None)] * several
    parallel.start(processes=1)
    assert len(joined) == several


QUICKSTART = ("experiments.quickstart", "--preset", "smoke", "--platform", "cpu")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, run):
    out = tmp_path_factory.mktemp("one") / "run"
    done = run(*QUICKSTART, "--devices", 2, "--out", out)
    assert f"report: {out / 'report.html'}" in done.stdout
    assert "digits × 0.5" in (out / "report.html").read_text()
    return out


def start_two(out, environment, logs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = (*QUICKSTART, "--out", out, "--coordinator", f"127.0.0.1:{port}", "--processes", 2)
    processes = []
    for i in range(2):
        with (logs / f"{i}.out").open("w") as stdout, (logs / f"{i}.err").open("w") as stderr:
            process = subprocess.Popen(
                command(*line, "--process-id", i),
                cwd=ROOT,
                env=environment,
                stdout=stdout,
                stderr=stderr,
            )
        processes.append(process)
    return processes


def test_two_processes_killed_and_resumed_are_one_process(
    one_process, environment, tmp_path, tmp_path_factory
):
    """One process is killed once the model is trained: the other ends. Both are started again.

    To the bit: a sum over two devices has one order, wherever they are.
    """
    out = tmp_path / "run"
    processes = start_two(out, environment, tmp_path)
    try:
        while not (out / "model" / "finished").exists():
            assert [p.poll() for p in processes] == [None, None], (tmp_path / "0.err").read_text()
            time.sleep(0.05)
        processes[1].kill()
        processes[1].wait()
        assert processes[0].wait(timeout=60) == 1
        said = (tmp_path / "0.err").read_text()
        assert re.search("^error: another process of this run ended", said, re.M), said
        # A process that JAX or a person ends without an exception leaves a message, too.
        assert "Start all of them again" in (tmp_path / "1.err").read_text()
        assert not (out / "report.html").exists()

        logs = tmp_path_factory.mktemp("again")
        processes = start_two(out, environment, logs)
        said = [p.wait() for p in processes], (logs / "0.err").read_text()
        assert said[0] == [0, 0], said[1]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    assert "training" not in said[1]
    assert "Start all of them again" not in said[1] + (logs / "1.err").read_text()
    assert (logs / "0.out").read_text().count("report:") == 1
    assert "report:" not in (logs / "1.out").read_text()
    two, one = (Scores(folder / "scores.npz").arrays for folder in (out, one_process))
    assert two.keys() == one.keys()
    for name in one:
        if not name.startswith("seconds/"):
            np.testing.assert_array_equal(two[name], one[name], err_msg=name)
