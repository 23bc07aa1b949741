"""Many runs give what the same runs give one by one, in chunks of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.deep_linear import LinearTask, gaussian

TASK = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))


@pytest.mark.parametrize("method", ["vmap", "map"])
@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 5, 100])
def test_chunks_change_nothing(method, chunk_size):
    members = {"x": jnp.arange(5.0), "y": np.linspace(0, 1, 10).reshape(5, 2), "name": "constant"}

    def f(member):
        return {"value": member["x"] ** 2 + jnp.sum(member["y"]), "name": member["name"], "nothing": None}

    found = tx.ensemble(f, members, method=method, chunk_size=chunk_size)
    np.testing.assert_allclose(found["value"], members["x"] ** 2 + members["y"].sum(axis=1), rtol=1e-15)
    assert found["name"] == "constant" and found["nothing"] is None


@pytest.mark.parametrize("method", ["vmap", "map"])
def test_training_runs(method):
    rule, keys = tx.GradientDescent(0.1), jax.random.split(jax.random.key(0), 3)

    def run(key):
        return tx.train(gaussian((2, 3, 2), scale=0.5, key=key), TASK, rule, [0.0, 1.0])

    together = tx.ensemble(run, keys, method=method, chunk_size=2)
    assert together.observed.shape == (3, 2) and jnp.all(together.result == tx.RESULTS.successful)
    for i, key in enumerate(keys):
        np.testing.assert_allclose(together.observed[i], run(key).observed, rtol=1e-12)


def test_compiles_once_and_reports_progress():
    traces, reports = [], []

    def f(x):
        traces.append(1)
        return x + 1

    tx.ensemble(f, jnp.arange(7.0), chunk_size=3, progress=lambda done, total: reports.append((done, total)))
    assert len(traces) == 1
    assert reports == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ({"a": np.ones(3), "b": np.ones(2)}, {}, r"one common leading axis; got leading sizes \[2, 3\]"),
        (np.ones(()), {}, r"one common leading axis; got leading sizes \[0\]"),
        (np.ones((0, 2)), {}, r"one common leading axis; got leading sizes \[0\]"),
        ("nothing", {}, "`members` must hold arrays"),
        (np.ones(3), {"chunk_size": 0}, "`chunk_size` must be at least 1; got 0"),
        (np.ones(3), {"chunk_size": -2}, "`chunk_size` must be at least 1; got -2"),
    ],
)
def test_refuses(members, options, message):
    with pytest.raises(ValueError, match=message):
        tx.ensemble(lambda member: member, members, **options)
