"""Mirror descent and its flow: potentials by their definition, closed forms, order of agreement, end points, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree
from toys import MODEL, TASK

import tractax as tx
from tractax.deep_linear import DeepLinear, RegressionTask, hyperbolic_entropy
from tractax.rules import Entropy, HyperbolicEntropy, MirrorDescent, MirrorFlow
from tractax.teacher_student import Point

INPUTS = jnp.asarray([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8]])
TARGETS = jnp.asarray([1.0, 0.4])


class Linear(tx.AbstractTask):
    """The loss c·w, whose mirror flow is a straight line in the dual."""

    slope: jax.Array

    def loss(self, model):
        return self.slope @ model.position


@pytest.mark.parametrize("potential", [Entropy(), HyperbolicEntropy(0.3)])
def test_potentials(potential):
    w = jnp.asarray([0.2, 1.3, 40.0]) if isinstance(potential, Entropy) else jnp.asarray([0.0, -1.3, 40.0, 1e-9])
    slope = jax.vmap(jax.grad(lambda x: potential.dual(x)))(w)
    np.testing.assert_allclose(potential.speed(w) * slope, 1.0, rtol=1e-13)
    change = jnp.asarray(0.7)
    np.testing.assert_allclose(potential.dual(potential.moved(w, change)), potential.dual(w) + 0.7, rtol=1e-12)


def test_straight_lines_in_the_dual():
    start, slope = jnp.asarray([0.5, 1.5]), jnp.asarray([0.4, -0.7])
    for potential, expected in (
        (Entropy(), start * jnp.exp(-2 * slope)),
        (HyperbolicEntropy(0.3), 0.3 * jnp.sinh(jnp.arcsinh(start / 0.3) - 2 * slope)),
    ):
        # Steps are exact here, whatever their length.
        run = tx.train(Point(start), Linear(slope), MirrorDescent(0.5, potential), [2.0], observe=lambda m: m.position)
        np.testing.assert_allclose(run.observed[0], expected, rtol=1e-12)


@pytest.mark.slow
def test_flow_in_the_dual():
    start, slope = jnp.asarray([0.5, 1.5]), jnp.asarray([0.4, -0.7])
    for potential in (Entropy(), HyperbolicEntropy(0.3)):
        run = tx.train(Point(start), Linear(slope), MirrorFlow(potential, 2.0), [3.0], observe=lambda m: m.position)
        np.testing.assert_allclose(potential.dual(run.observed[0]), potential.dual(start) - 1.5 * slope, rtol=1e-7)


@pytest.mark.slow
def test_where_it_ends():
    # Of all interpolators, the one of least hyperbolic entropy: one direction is free.
    task, scale = RegressionTask(INPUTS, TARGETS), 0.4
    rule = MirrorFlow(HyperbolicEntropy(2 * scale**2))
    model = DeepLinear((jnp.zeros((1, 3)),))
    found = tx.train(model, task, rule, [400.0], observe=lambda m: m.weights[0][0]).observed[0]
    np.testing.assert_allclose(INPUTS @ found, TARGETS, atol=1e-7)
    particular = np.linalg.lstsq(INPUTS, TARGETS, rcond=None)[0]
    free = np.cross(INPUTS[0], INPUTS[1])
    best = scipy.optimize.minimize_scalar(
        lambda c: float(hyperbolic_entropy(jnp.asarray(particular + c * free), scale)), tol=1e-12
    )
    np.testing.assert_allclose(found, particular + best.x * free, atol=1e-6)


@pytest.mark.slow
def test_steps_approach_the_flow():
    # On a network of two layers; the potential is far from quadratic.
    potential, ts = HyperbolicEntropy(0.2), [0.8]

    def weights(rule):
        return ravel_pytree(tx.train(MODEL, TASK, rule, ts, observe=lambda m: m).observed)[0]

    flow = weights(MirrorFlow(potential))
    error = jax.jit(lambda rate: jnp.linalg.norm(weights(MirrorDescent(rate, potential)) - flow))
    fit = tx.scaling(error, [0.08, 0.04, 0.02, 0.01], correction=1.0)
    assert float(fit.exponent) == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_large_scales_are_gradient_descent_and_batches_and_precision():
    scale = 1e6
    steps = tx.train(MODEL, TASK, MirrorDescent(0.1 / scale, HyperbolicEntropy(scale)), [1.0 / scale]).observed
    np.testing.assert_allclose(steps, tx.train(MODEL, TASK, tx.GradientDescent(0.1), [1.0]).observed, rtol=1e-9)
    task = RegressionTask(INPUTS.astype(jnp.float32), TARGETS.astype(jnp.float32))
    model = DeepLinear((jnp.full((1, 3), 0.5, jnp.float32),))
    rates = jnp.asarray([0.05, 0.1], jnp.float32)

    def final(rate):
        rule = MirrorDescent(rate, Entropy(), batch_size=2)
        return tx.train(model, task, rule, [4.0], key=jax.random.key(0), observe=lambda m: m.weights[0][0]).observed[0]

    found = jax.jit(jax.vmap(final))(rates)
    assert found.dtype == jnp.float32 and jnp.all(found > 0)


@pytest.mark.slow
def test_claim():
    assert tx.verify("mirror_flow").passed


def test_refuses():
    for build, message in (
        (lambda: HyperbolicEntropy(0.0), "`scale` must be positive"),
        (lambda: MirrorFlow(Entropy(), -1.0), "`time_constant` must be positive"),
        (lambda: MirrorFlow("entropy"), "`potential` must be a mirror potential"),
        (lambda: MirrorDescent(0.1, None), "`potential` must be a mirror potential"),
        (lambda: MirrorDescent(0.0, Entropy()), "`learning_rate` must be positive"),
        (lambda: MirrorDescent(0.1, Entropy(), batch_size=0), "`batch_size` must be a whole number"),
        (
            lambda: MirrorFlow(Entropy()).init(eqx.filter(MODEL, eqx.is_inexact_array)),
            "`model` must have positive parameters for the potential Entropy",
        ),
        (
            lambda: MirrorDescent(0.1, Entropy()).init(eqx.filter(MODEL, eqx.is_inexact_array)),
            "`model` must have positive parameters for the potential Entropy",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(RuntimeError, match="`model` must have positive parameters for the potential Entropy"):
        tx.train(MODEL, TASK, MirrorDescent(0.1, Entropy()), [0.1])
