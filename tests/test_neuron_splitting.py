"""Splitting units: reference values, whole runs, fixed points, effective width on the way through the saddles."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.deep_linear import RegressionTask
from tractax.two_layer import (
    LeakyReLU,
    OrthogonalReLUFlow,
    OrthogonalSaddles,
    TwoLayerNetwork,
    add_silent_units,
    balanced_units,
    effective_width,
    merge_units,
    split_unit,
)

TIGHT = {"solver": diffrax.Dopri8(), "stepsize_controller": diffrax.PIDController(rtol=1e-11, atol=1e-14)}
TASK = RegressionTask(np.asarray([[1.0, 0.5], [0.2, 1.0]]), np.asarray([1.0, 0.3]))


def test_reference_values():
    narrow = TwoLayerNetwork([[0.5, 0.5]], [0.4])
    end = tx.train(narrow, TASK, tx.GradientFlow(), [2.0], **TIGHT).model
    np.testing.assert_allclose(end.first[0], [0.7423002120883643, 0.5563055548532122], rtol=1e-10)
    np.testing.assert_allclose(end.second[0], [0.7214467930672176], rtol=1e-10)
    shares = np.asarray([0.6, 0.8])
    wide = tx.train(split_unit(narrow, 0, shares), TASK, tx.GradientFlow(), [2.0], **TIGHT).model
    np.testing.assert_allclose(wide.first, shares[:, None] * end.first, rtol=1e-10)
    np.testing.assert_allclose(wide.second[0], shares * end.second[0, 0], rtol=1e-10)


def random_case():
    rng = np.random.default_rng(3)
    task = RegressionTask(rng.normal(size=(7, 3)), rng.normal(size=(7, 2)))
    return task, TwoLayerNetwork(rng.normal(size=(2, 3)), rng.normal(size=(2, 2)), LeakyReLU(0.1))


@pytest.mark.slow
def test_wide_networks_train_as_narrow_ones():
    # Leaky units, two outputs, kinks on the way; and silent units stay silent.
    task, narrow = random_case()
    shares = np.sqrt([0.2, 0.5, 0.3])
    wide = add_silent_units(split_unit(narrow, 1, shares), 2)
    assert wide.sizes == (3, 6, 2)
    np.testing.assert_allclose(jax.vmap(wide)(task.inputs), jax.vmap(narrow)(task.inputs), rtol=1e-12)
    end, grown = (tx.train(m, task, tx.GradientFlow(), [3.0], **TIGHT).model for m in (narrow, wide))
    expected = add_silent_units(split_unit(end, 1, shares), 2)
    np.testing.assert_allclose(grown.first, expected.first, atol=1e-9)
    np.testing.assert_allclose(grown.second, expected.second, atol=1e-9)
    assert not jnp.any(grown.first[4:]) and not jnp.any(grown.second[:, 4:])
    # Merging undoes it, whatever the order of the units.
    merged = merge_units(wide)
    order = np.argsort(-np.asarray(merged.first[:, 0] * narrow.first[0, 0]))
    np.testing.assert_allclose(merged.first[order], narrow.first, rtol=1e-12)
    np.testing.assert_allclose(merged.second[:, order], narrow.second, rtol=1e-12)
    assert int(effective_width(wide)) == 2 == int(jax.jit(effective_width)(grown))


@pytest.mark.slow
def test_fixed_points_of_narrow_networks_are_those_of_wide_ones():
    # One unit that has learned the positive targets only: a saddle of every wider network.
    task = RegressionTask(np.eye(3), np.asarray([1.0, 0.5, -1.0]))
    saddles = OrthogonalSaddles.from_task(task)
    root = float(saddles.strengths[0]) ** 0.5
    narrow = TwoLayerNetwork(root * saddles.directions[:1], [root])
    wide = add_silent_units(split_unit(narrow, 0, np.asarray([0.28, 0.96])))
    for model in (narrow, wide):
        assert all(jnp.all(jnp.abs(g) < 1e-15) for g in jax.tree.leaves(jax.grad(task.loss)(model)))
    assert float(task.loss(wide)) == pytest.approx(1 / 6, rel=1e-12)
    # A unit of the other sign leaves it.
    leaves = TwoLayerNetwork(np.append(narrow.first, [[0, 0, 1e-6]], axis=0), np.append(narrow.second, [[-1e-6]], axis=1))
    assert float(jnp.abs(jax.grad(task.loss)(leaves).second[0, 1])) > 1e-7


def test_effective_width():
    units = np.asarray([[1.0, 0.0], [2.0, 0.0], [1.0, 1e-3], [0.0, 1.0], [-1.0, 0.0], [1e-4, 0.0], [0.0, 0.0]])
    model = TwoLayerNetwork(units, np.asarray([1.0, 2.0, 1.0, 1.0, 1.0, -1e-4, 0.0]))
    assert int(effective_width(model)) == 3
    assert int(effective_width(model, angle=1e-5)) == 4
    assert int(effective_width(model, floor=0.0)) == 4
    assert int(effective_width(model, floor=1.5)) == 1
    assert merge_units(model, angle=1e-5).sizes[1] == 5


@pytest.mark.slow
def test_width_grows_plateau_by_plateau():
    # From small weights: nothing, the faster sign, both.
    task = RegressionTask(2**0.5 * jnp.eye(4), np.asarray([1.5, 0.4, -0.9, -0.4]))
    saddles = OrthogonalSaddles.from_task(task)
    model = balanced_units(4, 24, scale=1e-6, key=jax.random.key(2))
    solution = OrthogonalReLUFlow.from_model(model, task, t1=80.0)
    first, second = np.sort(saddles.times(model))
    times = (0.5 * first, (first + second) / 2, second + 15.0)
    widths = [int(effective_width(solution.network(t), angle=0.1, floor=0.2)) for t in times]
    assert widths == [0, 1, 2]
    for t, level in zip(times, saddles.plateau_losses, strict=True):
        assert float(solution.loss(t)) == pytest.approx(float(level), rel=0.02, abs=1e-3)


def test_refusals():
    model = TwoLayerNetwork([[0.5, 0.5]], [0.4])
    for call, message in (
        (lambda: split_unit(model, 0, np.asarray([0.6, -0.8])), "`shares` must be positive"),
        (lambda: split_unit(model, 0, np.asarray([0.6, 0.7])), "`shares` must have squares that add up to 1"),
        (lambda: split_unit(model, 0, np.asarray([])), "`shares` must have shape"),
        (lambda: split_unit(model, 1, np.asarray([1.0])), "`unit` must be one of the 1 hidden units"),
        (lambda: split_unit(TwoLayerNetwork([[1.0]], [1.0], "quadratic"), 0, np.ones(1)), "leaky rectifier units"),
        (lambda: split_unit(TwoLayerNetwork([[1.0]], [1.0], bias=[0.0]), 0, np.ones(1)), "`model` must have no bias"),
        (lambda: add_silent_units(model, 0), "`units` must be a whole number of at least 1"),
        (lambda: merge_units(TwoLayerNetwork([[0.0]], [0.0])), "a unit that is not zero"),
        (lambda: jax.jit(merge_units)(model), "does not work under jax.jit"),
        (lambda: effective_width(model, floor=-1.0), "`floor` must be non-negative"),
        (lambda: effective_width(model, angle=-1.0), "`angle` must be non-negative"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
