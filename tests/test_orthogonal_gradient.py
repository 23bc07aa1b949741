"""Orthogonal gradients: conserved norms, single steps, the angle on a sphere, limits, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tractax as tx
from tractax.deep_linear import DeepLinear, LinearTask
from tractax.rules import OrthogonalFlow, array_norms, orthogonal_gradient, perp_grad
from tractax.two_layer import TwoLayerNetwork, residue_sums

TIGHT = {"solver": diffrax.Tsit5(), "stepsize_controller": diffrax.PIDController(rtol=1e-10, atol=1e-13)}


def case():
    rng = np.random.default_rng(1)
    bias = rng.normal(size=4)
    return TwoLayerNetwork(rng.normal(size=(4, 6)), rng.normal(size=(3, 4)), "tanh", bias=bias), residue_sums(3)


def test_projection():
    rng = np.random.default_rng(0)
    w, g = (
        {"a": jnp.asarray(rng.normal(size=(3, 2))), "b": jnp.asarray(rng.normal(size=4)), "zero": jnp.zeros(2)}
        for _ in range(2)
    )
    g["zero"] = jnp.asarray([1.0, 2.0])
    project = jax.jit(orthogonal_gradient, static_argnames="rescale")
    for rescale in (False, True):
        left = project(g, w, rescale=rescale)
        for name in ("a", "b"):
            assert abs(float(jnp.vdot(left[name], w[name]))) < 1e-14
            # What is left lies in the plane of g and w, on the side of g.
            sine = np.sqrt(1 - np.vdot(g[name], w[name]) ** 2 / np.sum(g[name] ** 2) / np.sum(w[name] ** 2))
            length = np.linalg.norm(g[name]) * (1.0 if rescale else sine)
            assert float(jnp.linalg.norm(left[name])) == pytest.approx(length, rel=1e-13)
            assert float(jnp.vdot(left[name], g[name])) == pytest.approx(
                length * sine * np.linalg.norm(g[name]), rel=1e-13
            )
        np.testing.assert_array_equal(left["zero"], g["zero"])
    # Nothing is left of a parallel gradient, rescaled or not, and derivatives are finite there.
    for rescale in (False, True):
        parallel = project(3.0 * w["a"], w["a"], rescale=rescale)
        assert float(jnp.max(jnp.abs(parallel))) < 1e-14
        slope = jax.grad(lambda g, r=rescale: jnp.sum(project(g, w["a"], rescale=r) ** 2))(jnp.zeros((3, 2)))
        assert jnp.all(jnp.isfinite(slope))
    np.testing.assert_allclose(project(g["a"], 1e-200 * w["a"]), project(g["a"], w["a"]), rtol=1e-12)
    assert orthogonal_gradient(jnp.ones(2, jnp.float32), jnp.ones(2, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("rescale", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_flow_conserves_norms(rescale):
    model, task = case()
    run = tx.train(model, task, OrthogonalFlow(2.0, rescale=rescale), [0.0, 1.0, 4.0], observe=array_norms, **TIGHT)
    assert run.observed.shape == (3, 3)
    np.testing.assert_allclose(run.observed, run.observed[:1] * np.ones((3, 1)), rtol=1e-9)
    assert float(task.loss(run.model)) < float(task.loss(model)) - 0.1


def test_arrays_of_zeros_stay_zero():
    model, task = case()
    model = TwoLayerNetwork(model.first, model.second, "tanh", bias=jnp.zeros(4))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    velocity = OrthogonalFlow().vector_field(0.0, params, tx.Objective(task, static))
    np.testing.assert_array_equal(velocity.bias, jnp.zeros(4))
    assert jnp.any(velocity.first != 0) and jnp.any(velocity.second != 0)


def test_steps_add_squares():
    model, task = case()
    gradient = eqx.filter_jit(eqx.filter_grad(task.loss))(model)
    before = array_norms(model)
    rule = tx.GradientDescent(0.2, lambda rate: optax.chain(perp_grad(rescale=True), optax.sgd(rate)))
    after = array_norms(tx.train(model, task, rule, [0.2]).model)
    np.testing.assert_allclose(after**2, before**2 + 0.04 * array_norms(gradient) ** 2, rtol=1e-13)


@pytest.mark.slow
def test_angle_on_a_sphere():
    # tan(θ/2) decays, for a matrix as for a vector, in any time unit.
    target = jnp.asarray([[1.0, -2.0], [0.5, 1.5]])
    start = jnp.asarray([[0.3, 0.4], [-1.0, 0.2]])
    tau, ts = 1.7, jnp.asarray([0.0, 0.5, 2.0, 10.0])

    def cosine(model):
        w = model.product
        return jnp.vdot(w, target) / jnp.linalg.norm(w) / jnp.linalg.norm(target)

    model = DeepLinear([start])
    found = tx.train(model, LinearTask(target), OrthogonalFlow(tau), ts, observe=cosine, **TIGHT).observed
    half = np.tan(np.arccos(found[0]) / 2) * np.exp(-np.linalg.norm(target) / np.linalg.norm(start) * ts / tau)
    np.testing.assert_allclose(found, np.cos(2 * np.arctan(half)), atol=1e-9)


@pytest.mark.slow
def test_transformations():
    model, task = case()

    def final(tau):
        return tx.train(model, task, OrthogonalFlow(tau), [1.0], **TIGHT).observed[0]

    values = jax.jit(jax.vmap(final))(jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(values[1], tx.train(model, task, OrthogonalFlow(), [0.5], **TIGHT).observed[0], rtol=1e-9)
    slope = (final(1.001) - final(0.999)) / 0.002
    assert float(jax.grad(final)(1.0)) == pytest.approx(float(slope), rel=1e-4)


def test_refusals():
    with pytest.raises(ValueError, match="`time_constant` must be positive"):
        OrthogonalFlow(-1.0)
    with pytest.raises(ValueError, match="`params` must be passed to the update of perp_grad"):
        perp_grad().update(jnp.ones(2), optax.EmptyState())
    with pytest.raises(ValueError, match="`model` must have trainable arrays"):
        array_norms({"n": 3})


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("orthogonal_gradient").passed
