"""Runs that are batched in an ensemble take the steps that they would take alone."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.deep_linear import LinearTask, gaussian

TARGET = jnp.diag(jnp.asarray([3.0, 1.0, 0.3]))
TS = jnp.asarray([0.0, 0.5, 0.51, 4.0, 9.0])
KEYS = jax.random.split(jax.random.key(0), 5)


def run(key, target=TARGET, observe=None, **options):
    """One network; its loss, its product map (too large to be written by selection), its steps."""
    model = gaussian((3, 4, 3), scale=0.2, key=key)
    task = LinearTask(target)
    observe = (task.loss, lambda model: jnp.tile(model.product, (2, 2))) if observe is None else observe
    return tx.train(model, task, tx.GradientFlow(), TS, observe=observe, throw=False, **options)


@pytest.mark.parametrize(
    ("solver", "controller", "dt0"),
    [
        (diffrax.Tsit5(), None, None),
        # Errors well above rounding, so that every step is the same.
        pytest.param(
            diffrax.Tsit5(),
            diffrax.PIDController(rtol=1e-4, atol=1e-5, pcoeff=0.3, icoeff=0.4),
            0.3,
            marks=pytest.mark.slow,
        ),
        pytest.param(diffrax.Dopri8(), diffrax.PIDController(rtol=1e-3, atol=1e-4), 0.3, marks=pytest.mark.slow),
        pytest.param(diffrax.Bosh3(), diffrax.PIDController(rtol=1e-4, atol=1e-6), None, marks=pytest.mark.slow),
        pytest.param(diffrax.Heun(), diffrax.ConstantStepSize(), 0.07, marks=pytest.mark.slow),
    ],
)
def test_same_steps_as_alone(solver, controller, dt0):
    def one(key):
        trajectory = run(key, solver=solver, stepsize_controller=controller, dt0=dt0)
        good = trajectory.result == tx.RESULTS.successful
        return trajectory.observed, trajectory.model.weights, trajectory.stats["num_steps"], good

    *together, steps, good = tx.ensemble(one, KEYS, method="vmap")
    assert good.all()
    for i, key in enumerate(KEYS):
        *alone, count, _ = one(key)
        assert steps[i] == count
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_members_differ_in_what_functions_close_over():
    def one(scale):
        # The data of a member reach the loss through an array of the task, the observable through a closure.
        trajectory = run(KEYS[0], target=scale * TARGET, observe=lambda model: jnp.sum(model.product) * scale)
        return trajectory.observed

    scales = jnp.asarray([0.5, 1.0, 2.0])
    together = tx.ensemble(one, scales, method="vmap")
    for i, scale in enumerate(scales):
        np.testing.assert_allclose(together[i], one(scale), rtol=1e-9)


def test_too_few_steps_are_reported_for_the_member_that_lacks_them():
    def one(scale):
        trajectory = run(KEYS[0], target=scale * TARGET, observe=lambda model: 1.0, max_steps=100)
        return trajectory.observed, trajectory.stats["num_steps"], trajectory.result

    observed, steps, result = tx.ensemble(one, jnp.asarray([0.1, 300.0]), method="vmap")
    np.testing.assert_array_equal(observed[0], 1.0)
    assert np.isnan(observed[1]).all()
    assert steps[0] < steps[1] == 100
    np.testing.assert_array_equal(result == tx.RESULTS.max_steps_reached, [False, True])


@pytest.mark.slow
def test_differentiable_inside_an_ensemble():
    def final_loss(scale, key):
        return run(key, target=scale * TARGET, observe=LinearTask(TARGET).loss).observed[-1]

    slope = jax.grad(final_loss)
    members = (jnp.asarray([0.7, 1.2]), KEYS[:2])
    together = tx.ensemble(lambda member: slope(*member), members, method="vmap")
    for i in range(2):
        np.testing.assert_allclose(together[i], slope(members[0][i], KEYS[i]), rtol=1e-8)
    # Against differences, not only against the other path.
    h = 1e-4
    difference = (final_loss(0.7 + h, KEYS[0]) - final_loss(0.7 - h, KEYS[0])) / (2 * h)
    np.testing.assert_allclose(together[0], difference, rtol=1e-5)


@pytest.mark.slow
def test_float32():
    target = TARGET.astype(jnp.float32)

    def one(key):
        model = jax.tree.map(
            lambda x: x.astype(jnp.float32), gaussian((3, 4, 3), scale=0.2, key=key), is_leaf=eqx.is_array
        )
        return tx.train(model, LinearTask(target), tx.GradientFlow(), TS).observed

    together = tx.ensemble(one, KEYS[:2], method="vmap")
    assert together.dtype == jnp.float32
    np.testing.assert_allclose(together[1], one(KEYS[1]), rtol=1e-3, atol=1e-6)
