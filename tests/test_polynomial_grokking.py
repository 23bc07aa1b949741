"""Quadratic units: reference value, quadrature, the moments against SciPy and the network, kernel, gap, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import tractax as tx
from tractax.two_layer import (
    PolynomialGrokking,
    PolynomialNetwork,
    PolynomialTask,
    QuadraticPolynomial,
    gaussian_polynomial_network,
    squared_projection,
)

RNG = np.random.default_rng(0)
BETA = RNG.normal(size=3)
MODEL = PolynomialNetwork(RNG.normal(size=(6, 3)), 2.0, 0.5)
TASK = PolynomialTask(squared_projection(BETA), RNG.normal(size=(7, 3)) / 3**0.5).centred(MODEL)
RULE = tx.GradientFlow(MODEL.time_constant)
SOLUTION = PolynomialGrokking.from_model(MODEL, TASK, RULE, t1=20.0)


def test_reference_value():
    mean, second = np.asarray([0.2, -0.1]), np.asarray([[0.5, 0.1], [0.1, 0.3]])
    # Units with these moments.
    spread = np.linalg.cholesky(second - np.outer(mean, mean))
    first = mean[None] + np.sqrt(2) * np.concatenate([spread.T, -spread.T])
    model = PolynomialNetwork(first, 2.0, 0.5)
    task = PolynomialTask(squared_projection([1.0, 0.5]))
    assert float(task.test_error(model)) == pytest.approx(0.18421875, rel=1e-14)
    assert float(task.loss(model)) == pytest.approx(0.18421875 / 2, rel=1e-14)


def test_population_error_against_quadrature():
    q = QuadraticPolynomial(jnp.asarray(RNG.normal(size=2)), jnp.asarray(RNG.normal(size=(2, 2))))
    points, weights = np.polynomial.hermite_e.hermegauss(6)
    x = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2) / 2**0.5
    w = np.outer(weights, weights).ravel() / (2 * np.pi)
    assert float(q.power) == pytest.approx(float(w @ jax.vmap(q)(jnp.asarray(x)) ** 2), rel=1e-13)


def test_moments_against_scipy():
    """The weights themselves, with the gradient written by hand, in the source's time."""
    x, start = np.asarray(TASK.inputs), np.asarray(MODEL.first)
    units, alpha, epsilon = len(start), 2.0, 0.5

    def outputs(first):
        fields = x @ first.T
        return alpha * np.mean(fields + epsilon / 2 * fields**2, axis=1)

    def velocity(t, first):
        first = first.reshape(units, 3)
        residual = (x @ BETA) ** 2 / 2 - (outputs(first) - outputs(start))
        slopes = 1 + epsilon * x @ first.T
        return ((residual[:, None] * slopes).T @ x / (alpha * len(x))).ravel()

    run = scipy.integrate.solve_ivp(velocity, (0, 15.0), start.ravel(), method="DOP853", rtol=1e-12, atol=1e-14)
    first = run.y[:, -1].reshape(units, 3)
    state = SOLUTION.evaluate(15.0)
    np.testing.assert_allclose(state.mean, first.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state.second, first.T @ first / units, rtol=1e-9, atol=1e-12)
    residual = (x @ BETA) ** 2 / 2 - (outputs(first) - outputs(start))
    assert float(SOLUTION.train_error(15.0)) == pytest.approx(np.mean(residual**2), rel=1e-8)
    ended = PolynomialNetwork(first, alpha, epsilon)
    assert float(SOLUTION.test_error(15.0)) == pytest.approx(float(TASK.test_error(ended)), rel=1e-9)
    np.testing.assert_allclose(
        SOLUTION.tangent_kernel(15.0, x), tx.analysis.tangent_kernel(ended, TASK.inputs)[:, 0, :, 0], rtol=1e-8
    )
    # At the start the centred network answers zero.
    assert float(SOLUTION.train_error(0.0)) == pytest.approx(np.mean((x @ BETA) ** 4) / 4, rel=1e-13)
    assert float(SOLUTION.test_error(0.0)) == pytest.approx(float(squared_projection(BETA).power), rel=1e-13)


@pytest.mark.parametrize("task", [TASK, PolynomialTask(TASK.target)], ids=["examples", "population"])
def test_velocity_is_that_of_the_weights(task):
    gradient = jax.grad(task.loss)(MODEL)
    moved = jax.tree.map(lambda g: -g / MODEL.time_constant, gradient)
    assert float(moved.output_scale) == 0 and float(moved.curvature) == 0
    at_hand = PolynomialGrokking(SOLUTION.path, MODEL, task, RULE)
    _, expected = jax.jvp(at_hand.reduce, (MODEL,), (moved,))
    velocity = at_hand.vector_field(0.0, at_hand.reduce(MODEL))
    np.testing.assert_allclose(velocity.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(velocity.second, expected.second, rtol=1e-12, atol=1e-14)


def test_linear_units_are_linear_regression():
    """Without curvature only the linear part is learned, at rates of the covariance of the inputs."""
    linear, x = jnp.asarray(BETA), TASK.inputs
    model = PolynomialNetwork(MODEL.first, 2.0, 0.0)
    task = PolynomialTask(QuadraticPolynomial(linear, jnp.zeros((3, 3))), x)
    found = PolynomialGrokking.from_model(model, task, tx.GradientFlow(model.time_constant), t1=20.0).polynomial(3.0)
    rates, vectors = np.linalg.eigh(x.T @ x / len(x))
    distance = vectors.T @ (model.polynomial.linear - linear)
    np.testing.assert_allclose(found.linear, linear + vectors @ (np.exp(-3.0 * rates) * distance), rtol=1e-9)
    np.testing.assert_allclose(found.quadratic, 0.0, atol=0.0)


def test_refusals():
    with pytest.raises(ValueError, match="no weight decay"):
        PolynomialGrokking.from_model(MODEL, TASK, tx.GradientFlow(weight_decay=0.1), t1=1.0)
    with pytest.raises(ValueError, match="horizon"):
        SOLUTION.evaluate(21.0)
    small = gaussian_polynomial_network(2, 4, 1.0, 0.5, key=jax.random.key(0))
    target = squared_projection(BETA)
    for call, message in (
        (lambda: PolynomialGrokking.from_model(small, TASK, t1=1.0), "`model` must have 3 inputs to fit"),
        (lambda: PolynomialGrokking.from_model(TASK, TASK, t1=1.0), "`model` must be a PolynomialNetwork"),
        (lambda: PolynomialGrokking.from_model(MODEL, MODEL, t1=1.0), "`task` must be a PolynomialTask"),
        (lambda: PolynomialGrokking.from_model(MODEL, TASK, tx.GradientDescent(0.1), t1=1.0), "`rule` must be"),
        (lambda: PolynomialGrokking.from_model(MODEL, TASK, t1=-1.0), "`t1` must be positive"),
        (lambda: PolynomialNetwork(np.ones((2, 2)), 0.0, 1.0), "`output_scale` must be positive"),
        (lambda: PolynomialNetwork(np.ones((2, 2)), np.ones(2), 1.0), "`output_scale` must be one number"),
        (lambda: PolynomialNetwork(np.ones((2, 2)), 1.0, np.nan), "`curvature` must be finite"),
        (lambda: PolynomialNetwork(np.ones(2), 1.0, 1.0), "`first` must have shape"),
        (lambda: gaussian_polynomial_network(0, 2, 1.0, 0.5, key=jax.random.key(0)), "`inputs` must be a whole number"),
        (lambda: gaussian_polynomial_network(2, 2, 1.0, 0.5, key=None), "`key` must be a JAX PRNG key"),
        (lambda: PolynomialTask(BETA), "`target` must be a QuadraticPolynomial"),
        (
            lambda: PolynomialTask(QuadraticPolynomial(jnp.ones(2), jnp.full((2, 2), jnp.nan))),
            "`target.quadratic`",
        ),
        (lambda: PolynomialTask(target, np.ones((4, 2))), "`inputs` must have shape"),
        (lambda: PolynomialTask.draw(target, 0, key=jax.random.key(0)), "`examples` must be a whole number"),
        (lambda: PolynomialTask(target).test_error(TASK), "`model` must be a PolynomialNetwork"),
        (lambda: TASK.centred(TASK), "`model` must be a PolynomialNetwork"),
        (lambda: TASK.loss(lambda x: x), "`model` must return one number for each example"),
        (lambda: SOLUTION.tangent_kernel(0.0, np.ones((2, 2))), "`inputs` must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
