"""Many runs give what the same runs give one by one: in chunks, side by side, interrupted, failing, reduced."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.deep_linear import LinearTask, gaussian

TASK = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))


@pytest.mark.parametrize("method", [None, "vmap", "map"])
@pytest.mark.parametrize("chunk_size", [None, 1, 3, 100])
def test_chunks_change_nothing(method, chunk_size):
    members = {"x": jnp.arange(5.0), "y": np.linspace(0, 1, 10).reshape(5, 2), "name": "constant"}

    def f(member):
        return {"value": member["x"] ** 2 + jnp.sum(member["y"]), "name": member["name"], "nothing": None}

    found = tx.ensemble(f, members, method=method, chunk_size=chunk_size)
    np.testing.assert_allclose(found["value"], members["x"] ** 2 + members["y"].sum(axis=1), rtol=1e-15)
    assert found["name"] == "constant" and found["nothing"] is None


RULE = tx.GradientDescent(0.1)


def run(key):
    """A short training run from random weights."""
    return tx.train(gaussian((2, 3, 2), scale=0.5, key=key), TASK, RULE, [0.0, 1.0])


KEYS = jax.random.split(jax.random.key(0), 6)


@pytest.mark.parametrize("method", ["vmap", "map"])
def test_training_runs_on_all_devices(method):
    devices = jax.devices()
    assert len(devices) == 2
    mesh = jax.sharding.Mesh(np.asarray(devices), ("members",))
    for where in (None, devices[1:], mesh):
        together = tx.ensemble(run, KEYS, method=method, chunk_size=2, devices=where)
        assert together.observed.shape == (6, 2) and jnp.all(together.result == tx.RESULTS.successful)
        for i, key in enumerate(KEYS[:2]):
            np.testing.assert_allclose(together.observed[i], run(key).observed, rtol=1e-12)


def test_compiles_once_and_reports_progress(capsys):
    traces, reports = [], []

    def f(x):
        traces.append(1)
        return x + 1

    for _ in range(2):
        tx.ensemble(f, jnp.arange(7.0), chunk_size=3, method="vmap", progress=lambda done, n: reports.append((done, n)))
    assert len(traces) == 1
    assert [n for _, n in reports] == [7] * 6 and reports[2] == reports[5] == (7, 7)
    tx.ensemble(f, jnp.arange(7.0), chunk_size=3, method="vmap", progress=True)
    assert "7/7" in capsys.readouterr().err


def test_large_networks_run_one_by_one(caplog):
    def train(key, size):
        return tx.train(gaussian((2, size, 2), scale=0.5, key=key), TASK, RULE, [1.0]).observed

    with caplog.at_level("INFO", logger="tractax"):
        tx.ensemble(lambda key: train(key, 3), KEYS)
        tx.ensemble(lambda key: train(key, 300), KEYS)
    assert ["vmap" in caplog.messages[0], "map" in caplog.messages[1]] == [True, True]


@pytest.mark.parametrize("method", ["vmap", pytest.param("map", marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", [tx.GradientDescent(0.1), pytest.param(tx.GradientFlow(), marks=pytest.mark.slow)])
def test_failures_stay_alone(method, rule):
    # Weights that overflow at once, beside ordinary ones.
    def scaled(scale):
        return tx.train(gaussian((2, 2, 2), scale=scale, key=jax.random.key(1)), TASK, rule, [0.0, 0.5])

    scales = jnp.asarray([0.5, 1e200, 0.3])
    together = tx.ensemble(scaled, scales, method=method)
    assert list(together.result == tx.RESULTS.successful) == [True, False, True]
    assert jnp.all(jnp.isnan(together.observed[1])) and jnp.all(jnp.isnan(together.model.weights[0][1]))
    for i in (0, 2):
        np.testing.assert_allclose(together.observed[i], scaled(scales[i]).observed, rtol=1e-7)
    moments = tx.ensemble(lambda scale: scaled(scale).observed, scales, method=method, reduce=tx.Mean())
    assert moments.count == 2
    np.testing.assert_allclose(moments.mean, together.observed[jnp.asarray([0, 2])].mean(axis=0), rtol=1e-12)


def test_reductions_against_numpy():
    values = np.array(jax.random.normal(jax.random.key(2), (1000, 3)))
    values[7] = np.nan
    found = tx.ensemble(
        lambda x: {"x": x, "index": jnp.asarray(1)},
        jnp.asarray(values),
        chunk_size=64,
        reduce={"moments": tx.Mean(), "quantiles": tx.Quantiles((0.0, 0.1, 0.5, 0.9, 1.0), accuracy=0.01)},
    )
    kept = np.delete(values, 7, axis=0)
    moments, quantiles = found["moments"]["x"], found["quantiles"]["x"]
    assert moments.count == 999 and found["moments"]["index"] is None
    np.testing.assert_allclose(moments.mean, kept.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.standard_error, kept.std(axis=0, ddof=1) / 999**0.5, rtol=1e-12)
    exact = np.quantile(kept, [0.0, 0.1, 0.5, 0.9, 1.0], axis=0, method="lower")
    np.testing.assert_allclose(quantiles, exact, rtol=0.01)
    nobody = tx.ensemble(lambda x: x / 0 * 0, jnp.zeros(3), reduce={"m": tx.Mean(), "q": tx.Quantiles(0.5)})
    assert nobody["m"].count == 0 and np.isnan(nobody["m"].mean) and np.all(np.isnan(nobody["q"]))


def test_quantiles_of_extreme_values():
    values = jnp.asarray([0.0, 1e-20, -3e7, 5.0, 1e300])
    found = tx.ensemble(lambda x: x, values, reduce=tx.Quantiles((0.0, 0.25, 0.5, 0.75)))
    np.testing.assert_allclose(found, [-3e7, 0.0, 0.0, 5.0], rtol=0.01)


def test_goes_on_where_it_stopped(tmp_path):
    seen = []

    def interrupt(done, total):
        seen.append(done)
        if done >= 4:
            raise KeyboardInterrupt

    whole = tx.ensemble(run, KEYS, chunk_size=1)
    for reduce, folder in ((None, "all"), ({"mean": tx.Mean(), "q": tx.Quantiles(0.5)}, "reduced")):
        options = {"chunk_size": 1, "path": tmp_path / folder, "reduce": reduce}
        with pytest.raises(KeyboardInterrupt):
            tx.ensemble(run, KEYS, progress=interrupt, **options)
        stored = sorted(file.name for file in (tmp_path / folder).glob("*.npz"))
        assert len(stored) >= 4 and not list((tmp_path / folder).glob(".*"))
        seen.clear()
        resumed = tx.ensemble(run, KEYS, progress=lambda done, total: seen.append(done), **options)
        assert seen[0] >= 4 and seen[-1] == 6
        expected = whole if reduce is None else tx.ensemble(run, KEYS, chunk_size=1, reduce=reduce)
        for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)


SCRIPT = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
import tractax as tx
from tractax.deep_linear import LinearTask, gaussian

task, rule = LinearTask(np.diag([2.0, 1.0])), tx.GradientDescent(1e-3)

def run(key):
    return tx.train(gaussian((2, 3, 2), scale=0.5, key=key), task, rule, [0.0, 200.0]).observed

keys = jax.random.split(jax.random.key(0), 12)
np.save(sys.argv[2], tx.ensemble(run, keys, chunk_size=1, method="map", path=sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def start(folder):
        out = tmp_path / f"{folder}.npy"
        return out, subprocess.Popen([sys.executable, script, tmp_path / folder, out], env=os.environ)

    reference, process = start("reference")
    assert process.wait() == 0
    random = np.random.default_rng(0)
    kills = 0
    while True:
        out, process = start("killed")
        folder = tmp_path / "killed"
        before = len(list(folder.glob("*.npz")))
        while process.poll() is None and len(list(folder.glob("chunk*.npz"))) <= before:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.05))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
        assert kills < 20
    assert kills >= 2
    np.testing.assert_array_equal(np.load(out), np.load(reference))


HOST = (
    """
import sys
import jax
jax.distributed.initialize(f"localhost:{sys.argv[3]}", 2, int(sys.argv[4]))
assert jax.process_count() == 2
"""
    + SCRIPT
)


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script, outs = tmp_path / "host.py", [tmp_path / "a.npy", tmp_path / "b.npy"]
    script.write_text(HOST)
    processes = [
        subprocess.Popen([sys.executable, script, tmp_path / "runs", out, str(port), str(i)], env=os.environ)
        for i, out in enumerate(outs)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    np.testing.assert_array_equal(np.load(outs[0]), np.load(outs[1]))
    assert np.all(np.isfinite(np.load(outs[0]))) and np.load(outs[0]).shape == (12, 2)


def test_other_configurations_are_refused(tmp_path):
    options = {"chunk_size": 2, "method": "vmap", "path": tmp_path / "runs"}
    scale = 2.0
    tx.ensemble(lambda x: scale * x, jnp.arange(4.0), **options)
    np.testing.assert_array_equal(tx.ensemble(lambda x: 2.0 * x, jnp.arange(4.0), **options), 2 * np.arange(4.0))
    changes = {
        "members": (lambda x: scale * x, jnp.arange(1.0, 5.0), {}),
        "function": (lambda x: 3.0 * x, jnp.arange(4.0), {}),
        "chunk_size": (lambda x: scale * x, jnp.arange(4.0), {"chunk_size": 1}),
        "method": (lambda x: scale * x, jnp.arange(4.0), {"method": "map"}),
        "reduce": (lambda x: scale * x, jnp.arange(4.0), {"reduce": tx.Mean()}),
    }
    for name, (f, members, changed) in changes.items():
        with pytest.raises(ValueError, match=f"`path` holds the results of another ensemble.*{name}"):
            tx.ensemble(f, members, **{**options, **changed})
    manifest = tmp_path / "runs" / "ensemble.json"
    stored = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**stored, "jax": "0.0"}))
    with pytest.raises(ValueError, match=r"differs in jax \(jax: 0.0 on disk"):
        tx.ensemble(lambda x: scale * x, jnp.arange(4.0), **options)
    manifest.write_text("{")
    with pytest.raises(ValueError, match="manifest that cannot be read"):
        tx.ensemble(lambda x: scale * x, jnp.arange(4.0), **options)
    manifest.write_text(json.dumps(stored))
    for damaged in (b"nothing", b""):
        (tmp_path / "runs" / "chunk-000001.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"chunk that cannot be read.*Delete it"):
            tx.ensemble(lambda x: scale * x, jnp.arange(4.0), **options)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="`path` must be a new folder"):
        tx.ensemble(lambda x: scale * x, jnp.arange(4.0), path=tmp_path)


def test_goes_on_after_a_manifest_was_begun(tmp_path):
    (tmp_path / ".ensemble.0123.json").write_text("{")
    np.testing.assert_array_equal(tx.ensemble(lambda x: 2 * x, jnp.arange(4.0), path=tmp_path), 2 * np.arange(4.0))


def test_order_of_reductions_is_part_of_the_configuration(tmp_path):
    mean, quantiles = tx.Mean(), tx.Quantiles(0.5)
    tx.ensemble(lambda x: 2 * x, jnp.arange(4.0), path=tmp_path / "a", reduce={"m": mean, "q": quantiles})
    with pytest.raises(ValueError, match="differs in reduce"):
        tx.ensemble(lambda x: 2 * x, jnp.arange(4.0), path=tmp_path / "a", reduce={"q": quantiles, "m": mean})


def test_bfloat16_and_no_numbers(tmp_path):
    def f(x):
        return x.astype(jnp.bfloat16)

    for _ in range(2):
        assert tx.ensemble(f, jnp.arange(4.0), path=tmp_path / "a").dtype == jnp.bfloat16
    assert tx.ensemble(f, jnp.arange(4.0), reduce=tx.Mean()).mean == 1.5
    assert tx.ensemble(lambda x: None, jnp.arange(4.0), reduce=tx.Mean()) is None


def test_large_constants_are_part_of_the_function(tmp_path):
    table = np.arange(1000.0)
    other = table.copy()
    other[500] += 1e-9
    tx.ensemble(lambda x: x * jnp.sum(jnp.asarray(table) ** 2), jnp.arange(2.0), path=tmp_path / "a")
    with pytest.raises(ValueError, match="differs in function"):
        tx.ensemble(lambda x: x * jnp.sum(jnp.asarray(other) ** 2), jnp.arange(2.0), path=tmp_path / "a")


def test_to_xarray():
    data = tx.to_xarray(tx.ensemble(run, KEYS), coords={"member": np.arange(6)})
    assert data["value"].dims == ("member", "time") and data["value"].shape == (6, 2)
    assert list(data["time"].values) == [0.0, 1.0] and data["result"].dims == ("member",)
    nested = tx.to_xarray({"a": {"b": jnp.zeros((3, 2))}, "c": jnp.ones(3)})
    assert nested["a.b"].dims == ("member", "a.b_0") and nested["c"].dims == ("member",)
    assert tx.to_xarray(run(KEYS[0]), dims=())["value"].dims == ("time",)
    # Steps of different lengths are recorded at different times.
    rates = jnp.asarray([0.1, 0.3])
    steps = tx.ensemble(
        lambda rate: tx.train(gaussian((2, 3, 2), scale=0.5, key=KEYS[0]), TASK, tx.GradientDescent(rate), [0.0, 1.0]),
        rates,
    )
    data = tx.to_xarray(steps)
    assert "time" not in data.coords
    np.testing.assert_allclose(data["ts"][:, 1], [1.0, 0.9])
    for results, dims, message in (
        ({"a": jnp.zeros(())}, ("member",), "`results` must have the axes"),
        ({"a": jnp.zeros(3)}, "member", "`dims` must be a sequence of names"),
        (run(KEYS[0]), ("member",), "`results` must be a trajectory with the axes"),
        ({"a.b": jnp.zeros(3), "a": {"b": jnp.zeros(3)}}, ("member",), "names of their own; a.b is there twice"),
    ):
        with pytest.raises(ValueError, match=message):
            tx.to_xarray(results, dims=dims)


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ({"a": np.ones(3), "b": np.ones(2)}, {}, r"one common leading axis; got leading sizes \[2, 3\]"),
        (np.ones(()), {}, r"one common leading axis; got leading sizes \[0\]"),
        (np.ones((0, 2)), {}, r"one common leading axis; got leading sizes \[0\]"),
        ("nothing", {}, "`members` must hold arrays"),
        (np.ones(3), {"chunk_size": 0}, "`chunk_size` must be a whole number of at least 1; got 0"),
        (np.ones(3), {"chunk_size": True}, "`chunk_size` must be a whole number of at least 1; got True"),
        (np.ones(3), {"devices": "cpu"}, "`devices` must be a list of devices, or a jax.sharding.Mesh; got 'cpu'"),
        (np.asarray(["a", "b"]), {}, "`members` must hold arrays of numbers or PRNG keys"),
        (KEYS, {}, "`f` must return arrays of numbers; got a PRNG key"),
        (np.ones(3) * 1j, {"reduce": tx.Mean()}, "`f` must return real numbers for `reduce`; got complex128"),
        (np.ones(3), {"chunk_size": -2}, "`chunk_size` must be a whole number of at least 1; got -2"),
        (np.ones(3), {"devices": []}, "`devices` must hold devices of this process"),
    ],
)
def test_refuses(members, options, message):
    with pytest.raises(ValueError, match=message):
        tx.ensemble(lambda member: member, members, **options)


def test_refuses_to_be_part_of_another_program():
    def total(members):
        return jnp.sum(tx.ensemble(lambda member: member, members))

    def inner(factor):
        return jnp.sum(tx.ensemble(lambda member: factor * member, jnp.ones(2), method="map"))

    for function, argument in ((jax.jit(total), jnp.ones(2)), (jax.grad(inner), 1.0)):
        with pytest.raises(ValueError, match=r"`tx\.ensemble` cannot be part of another program"):
            function(argument)


def test_refuses_bad_quantiles():
    with pytest.raises(ValueError, match="`q` must hold levels between 0 and 1"):
        tx.Quantiles(1.5)
    with pytest.raises(ValueError, match="`accuracy` must lie between 0 and 1"):
        tx.Quantiles(0.5, accuracy=0.0)
    with pytest.raises(ValueError, match="`smallest` must lie between 0 and 1"):
        tx.Quantiles(0.5, smallest=2.0)
