"""The flows that gradient descent follows: reference values, orders of agreement on several networks, refusals."""

import itertools
import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from toys import MODEL, TASK

import tractax as tx
from tractax.deep_linear import RegressionTask
from tractax.rules import ModifiedFlow, PrincipalFlow
from tractax.transformers import InContextRegression, gaussian_attention
from tractax.two_layer import TwoLayerNetwork


class Point(eqx.Module):
    """A model that is nothing but its parameters."""

    w: jax.Array


class Landscape(tx.AbstractTask):
    """A loss of three numbers whose derivatives of every order differ from zero."""

    def loss(self, model):
        x, y, z = model.w
        return x**2 / 2 + y**4 / 4 + z**2 + x * y**2 * z / 2 + jnp.sin(x + z) + x**3 * z / 5


class Quartic(tx.AbstractTask):
    """The loss w⁴/4."""

    def loss(self, model):
        return jnp.sum(model.w**4) / 4


def _tanh():
    keys = jax.random.split(jax.random.key(3), 3)
    first, inputs = jax.random.normal(keys[0], (3, 2)), jax.random.normal(keys[1], (5, 2))
    model = TwoLayerNetwork(0.8 * first, jnp.asarray([0.7, -0.9, 0.4]), "tanh", bias=jnp.asarray([0.1, -0.2, 0.3]))
    return model, RegressionTask(inputs, jax.random.normal(keys[2], (5, 1)))


def _attention():
    covariance = jnp.asarray([[1.0, 0.3], [0.3, 0.6]])
    return gaussian_attention(2, 2, scale=0.7, key=jax.random.key(4)), InContextRegression(covariance, 6)


NETWORKS = {"deep_linear": (MODEL, TASK), "tanh": _tanh(), "attention": _attention()}
networks = pytest.mark.parametrize("name", NETWORKS)
# The exact moments of prompts take long to compile once differentiated twice.
most_networks = pytest.mark.parametrize(
    "name", ["deep_linear", "tanh", pytest.param("attention", marks=pytest.mark.slow)]
)
RATES = jnp.asarray([0.08, 0.04, 0.02, 0.01])


@eqx.filter_jit
def _velocity(rule, model, task):
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return ravel_pytree(rule.vector_field(0.0, params, tx.Objective(task, static)))[0]


def _flat(model):
    return ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0]


def _drift(name, flow, time):
    """The distance between descent and a flow, for all learning rates side by side; `None` for one step."""
    model, task = NETWORKS[name]

    def distance(rate):
        ts = jnp.stack([rate if time is None else jnp.asarray(time)])
        steps = tx.train(model, task, tx.GradientDescent(rate), ts, observe=_flat).observed[0]
        return jnp.linalg.norm(steps - _integrated(flow(rate), model, task, ts[0]))

    return jax.jit(jax.vmap(distance))(RATES)


def _integrated(rule, model, task, t):
    tight = diffrax.PIDController(rtol=1e-11, atol=1e-14)
    return tx.train(model, task, rule, t[None], observe=_flat, stepsize_controller=tight).observed[0]


def _slope(drifts):
    errors = dict(zip(RATES.tolist(), drifts.tolist(), strict=True))
    return tx.scaling(errors.__getitem__, RATES.tolist(), correction=1.0)


def _recursion(field, order):
    """f_j = -Σ_{i≥2} 1/i! Σ D_{k₁}⋯D_{k_{i-1}} f_{k_i} over k₁ + … + k_i = j - i + 1, as it stands."""
    fields = [field]

    def along(outer, direction):
        return lambda w: jax.jvp(outer, (w,), (direction(w),))[1]

    def correction(j):
        parts = []
        for i in range(2, j + 2):
            for ks in itertools.product(range(j), repeat=i):
                if sum(ks) == j - i + 1:
                    derived = fields[ks[-1]]
                    for k in reversed(ks[:-1]):
                        derived = along(derived, fields[k])
                    parts.append((math.factorial(i), derived))
        return lambda w: -sum(part(w) / weight for weight, part in parts)

    for j in range(1, order):
        fields.append(correction(j))
    return fields


@pytest.mark.slow
def test_field_against_the_recursion():
    model, h = Point(jnp.asarray([0.7, -0.4, 0.9])), 0.3
    fields = _recursion(lambda w: -jax.grad(lambda w: Landscape().loss(Point(w)))(w), 4)
    terms = [h**j * f(model.w) for j, f in enumerate(fields)]
    for order in range(1, 5):
        expected = sum(terms[:order])
        np.testing.assert_allclose(_velocity(ModifiedFlow(h, order), model, Landscape()), expected, rtol=1e-12)


@pytest.mark.parametrize(("order", "expected"), [(1, -1.0), (2, -1.15), (3, -1.185)])
def test_reference_field(order, expected):
    found = _velocity(ModifiedFlow(0.1, order), Point(jnp.asarray([1.0])), Quartic())
    np.testing.assert_allclose(found, [expected], rtol=1e-14)


@pytest.mark.slow
@most_networks
def test_order_two_descends_the_modified_loss(name):
    model, task = NETWORKS[name]
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective, h = tx.Objective(task, static), 0.1

    def modified(params):
        return objective.loss(params) + h / 4 * jnp.sum(ravel_pytree(objective.gradient(params))[0] ** 2)

    expected = -ravel_pytree(jax.grad(modified)(params))[0]
    np.testing.assert_allclose(_velocity(ModifiedFlow(h), model, task), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
@most_networks
def test_principal_flow_is_a_function_of_the_hessian(name):
    # -Σ (hH)^k g / (k + 1), the series of log(1 - x)/x.
    model, task = NETWORKS[name]
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)

    def loss(flat):
        return task.loss(eqx.combine(unravel(flat), static))

    matrix, term = 0.05 * jax.hessian(loss)(flat), jax.grad(loss)(flat)
    assert float(jnp.max(jnp.abs(jnp.linalg.eigvalsh(matrix)))) < 0.5
    expected = -term
    for k in range(1, 50):
        term = matrix @ term
        expected = expected - term / (k + 1)
    np.testing.assert_allclose(_velocity(PrincipalFlow(0.05), model, task), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_global_order():
    fit = _slope(_drift("tanh", lambda h: ModifiedFlow(h, 3), 0.48))
    assert float(fit.exponent) == pytest.approx(3, abs=0.1)


@pytest.mark.slow
@networks
@pytest.mark.parametrize("order", range(1, 5))
def test_every_order(name, order):
    for time, expected in ((0.48, order), (None, order + 1)):
        fit = _slope(_drift(name, lambda h: ModifiedFlow(h, order), time))
        assert float(fit.exponent) == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
@networks
def test_principal_flow_orders(name):
    for time, expected in ((0.48, 2), (None, 3)):
        assert float(_slope(_drift(name, PrincipalFlow, time)).exponent) == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
def test_an_ensemble_over_learning_rates():
    model, task = NETWORKS["deep_linear"]
    losses = tx.ensemble(lambda h: tx.train(model, task, ModifiedFlow(h), [0.5]).observed[0], RATES)
    alone = tx.train(model, task, ModifiedFlow(RATES[0]), [0.5]).observed[0]
    assert float(losses[0]) == pytest.approx(float(alone), rel=1e-8)
    assert jnp.all(jnp.diff(losses) > 0)


def test_float32():
    model = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, NETWORKS["tanh"][0])
    task = jax.tree.map(lambda x: x.astype(jnp.float32), NETWORKS["tanh"][1])
    for rule in (ModifiedFlow(0.1, 3), PrincipalFlow(0.1)):
        found = _velocity(rule, model, task)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, _velocity(rule, *NETWORKS["tanh"]), rtol=1e-4, atol=1e-5)


def test_gradient_of_the_field_in_the_learning_rate():
    model, task = NETWORKS["tanh"]
    for rule in (lambda h: ModifiedFlow(h, 3), PrincipalFlow):
        slope = jax.jacfwd(lambda h, rule=rule: _velocity(rule(h), model, task))(0.1)
        ahead, behind = (_velocity(rule(jnp.asarray(0.1 + step)), model, task) for step in (1e-5, -1e-5))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-8)


def test_principal_flow_ends_where_descent_would_jump():
    # Curvature 3w², so hλ = 1 at w = 1 for h = 1/3; the flow begins beyond.
    start = Point(jnp.asarray([1.2]))
    assert jnp.isnan(_velocity(PrincipalFlow(1 / 3), start, Quartic())).all()
    assert jnp.isfinite(_velocity(PrincipalFlow(0.2), start, Quartic())).all()
    run = tx.train(start, Quartic(), PrincipalFlow(1 / 3), [0.5, 1.0], throw=False)
    assert run.result == tx.RESULTS.diverged


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ModifiedFlow(0.0), "`learning_rate` must be positive; got 0.0"),
        (lambda: ModifiedFlow(jnp.nan), "`learning_rate` must be finite"),
        (lambda: ModifiedFlow(0.1, 0), "`order` must be a whole number from 1 to 4; got 0"),
        (lambda: ModifiedFlow(0.1, 5), "`order` must be a whole number from 1 to 4; got 5"),
        (lambda: ModifiedFlow(0.1, 2.0), "`order` must be a whole number from 1 to 4; got 2.0"),
        (lambda: ModifiedFlow(0.1, True), "`order` must be a whole number from 1 to 4; got True"),
        (lambda: PrincipalFlow(-0.1), "`learning_rate` must be positive; got -0.1"),
        (lambda: PrincipalFlow(jnp.inf), "`learning_rate` must be finite"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
