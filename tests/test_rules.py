"""Units, decay and relative rates of the rules, against formulas for a single linear layer."""

import inspect

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tractax as tx
from tractax.deep_linear import DeepLinear, LinearTask

TARGET = jnp.asarray([[2.0, 0.5]])
TASK = LinearTask(TARGET)
START = DeepLinear([jnp.asarray([[-1.0, 1.0]])])
TWO_LAYERS = DeepLinear([jnp.asarray([[0.3, 0.4]]), jnp.asarray([[0.5]])])


def _final(rule, t, model=START):
    return tx.train(model, TASK, rule, [t]).model


def test_time_constant_and_weight_decay():
    # τ ẇ = -(w - w*) - γ w has the rate (1 + γ)/τ and the limit w*/(1 + γ).
    tau, gamma, t = 2.0, 0.25, 1.3
    limit = TARGET / (1 + gamma)
    expected = limit + (START.product - limit) * np.exp(-(1 + gamma) * t / tau)
    np.testing.assert_allclose(_final(tx.GradientFlow(tau, gamma), t).product, expected, rtol=1e-8)


@pytest.mark.slow
def test_relative_rates():
    frozen = _final(tx.GradientFlow(rates=(0.0, 1.0)), 2.0, TWO_LAYERS)
    np.testing.assert_array_equal(frozen.weights[0], TWO_LAYERS.weights[0])
    assert frozen.weights[1] != TWO_LAYERS.weights[1]
    # Equal rates are a change of the time unit.
    fast = _final(tx.GradientFlow(rates=jnp.full(2, 3.0)), 1.0, TWO_LAYERS)
    np.testing.assert_allclose(fast.product, _final(tx.GradientFlow(1 / 3), 1.0, TWO_LAYERS).product, rtol=1e-9)
    with pytest.raises(ValueError, match=r"`rates` must hold one number for each of the 2 trainable arrays.*\(3,\)"):
        _final(tx.GradientFlow(rates=jnp.ones(3)), 1.0, TWO_LAYERS)


@pytest.mark.slow
def test_gradient_with_respect_to_the_rule():
    def final(tau):
        return tx.train(START, TASK, tx.GradientFlow(tau), [1.0]).observed[0]

    # L = ½‖w(0) - w*‖² exp(-2t/τ)
    tau = jnp.asarray(1.5)
    assert float(jax.grad(final)(tau)) == pytest.approx(float(final(tau)) * 2 / 1.5**2, rel=1e-7)


def test_step_rule_and_its_time():
    rule = tx.GradientDescent(0.1)
    np.testing.assert_allclose(_final(rule, 1.0).product, TARGET + (START.product - TARGET) * 0.9**10, rtol=1e-12)
    momentum = tx.GradientDescent(0.1, lambda rate: optax.sgd(rate, momentum=0.5), time_per_step=0.2)
    trajectory = tx.train(START, TASK, momentum, [0.2, 0.4], observe=lambda model: model.product)
    error = START.product - TARGET
    after_one = error - 0.1 * error
    after_two = after_one - 0.1 * (after_one + 0.5 * error)
    np.testing.assert_allclose(trajectory.observed - TARGET[None], jnp.stack([after_one, after_two]), rtol=1e-12)
    assert not rule.random and tx.GradientDescent(0.1, batch_size=3).random


def test_the_same_objects_go_to_diffrax_by_hand():
    rule = tx.GradientFlow(weight_decay=0.1)
    params, static = eqx.partition(TWO_LAYERS, eqx.is_inexact_array)
    solution = diffrax.diffeqsolve(
        rule.terms(rule.init(params), 0.0, 1.0, key=None),
        diffrax.Tsit5(),
        t0=0.0,
        t1=1.0,
        dt0=None,
        y0=rule.init(params),
        args=tx.Objective(TASK, static),
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-12),
    )
    final = eqx.combine(jax.tree.map(lambda x: x[0], rule.params(solution.ys)), static)
    np.testing.assert_allclose(final.product, _final(rule, 1.0, TWO_LAYERS).product, rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tx.GradientFlow(0.0), "`time_constant` must be positive; got 0.0"),
        (lambda: tx.GradientFlow(-1.0), "`time_constant` must be positive"),
        (lambda: tx.GradientFlow(weight_decay=-0.1), "`weight_decay` must be non-negative"),
        (lambda: tx.GradientFlow(rates=jnp.asarray([1.0, -1.0])), "`rates` must be non-negative"),
        (lambda: tx.GradientDescent(0.0), "`learning_rate` must be positive; got 0.0"),
        (lambda: tx.GradientDescent(jnp.nan), "`learning_rate` must be finite"),
        (lambda: tx.GradientDescent(jnp.ones(2)), r"`learning_rate` must be one number; got shape \(2,\)"),
        (lambda: tx.GradientFlow(jnp.ones(2)), r"`time_constant` must be one number; got shape \(2,\)"),
        (lambda: tx.GradientFlow(weight_decay=jnp.ones(2)), r"`weight_decay` must be one number; got shape \(2,\)"),
        (lambda: tx.rules.HeavyBall(0.1, jnp.zeros(2)), r"`momentum` must be one number; got shape \(2,\)"),
        (lambda: tx.GradientDescent(0.1, time_per_step=-1.0), "`time_per_step` must be positive"),
        (lambda: tx.GradientDescent(0.1, batch_size=0), "`batch_size` must be a whole number of at least 1"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_refuses_other_types():
    # Without the type checks that the tests switch on.
    build = inspect.unwrap(tx.GradientDescent.__init__)
    rule = object.__new__(tx.GradientDescent)
    with pytest.raises(ValueError, match=r"`optimiser` must be an optax transformation.*got 'sgd'"):
        build(rule, 0.1, "sgd")
    with pytest.raises(ValueError, match=r"`batch_size` must be a whole number.*got 2.5"):
        build(rule, 0.1, batch_size=2.5)
    assert tx.rules.ScheduledDescent(jnp.ones(2), batch_size=np.int64(3)).batch_size == 3


def test_scale_by_fan_in():
    weights = [np.ones((3, 2)), np.full((4, 3), 0.2), np.full((1, 4), 0.3)]
    model, task = DeepLinear(weights), LinearTask(TARGET)

    def after(rate, transformation):
        rule = tx.GradientDescent(rate, lambda r: optax.chain(optax.sgd(r), transformation), time_per_step=1.0)
        return tx.train(model, task, rule, [1.0]).model.weights

    hidden = tx.rules.scale_by_fan_in(lambda m: m.weights[1:2], base_fan_in=6)
    gradient = jax.grad(task.loss)(model).weights
    rates = jnp.asarray([0.1, 0.03])
    many = jax.vmap(lambda rate: after(rate, hidden))(rates)
    for i, scale in enumerate((1.0, 6 / 3, 1.0)):
        expected = weights[i][None] - rates[:, None, None] * scale * gradient[i][None]
        np.testing.assert_allclose(many[i], expected, rtol=1e-12)
    # At the base width it does nothing.
    same = after(0.1, tx.rules.scale_by_fan_in(lambda m: m.weights[1], base_fan_in=3))
    np.testing.assert_allclose(same[1], weights[1] - 0.1 * gradient[1], rtol=1e-12)
    with pytest.raises(ValueError, match="`base_fan_in` must be positive"):
        tx.rules.scale_by_fan_in(lambda m: m.weights, base_fan_in=0)
    for choice, message in ((lambda m: m.weights[1][0], r"an array of shape \(3,\)"), (lambda m: None, "None")):
        with pytest.raises(ValueError, match=f"`hidden` must choose trainable matrices of the model; got {message}"):
            after(0.1, tx.rules.scale_by_fan_in(choice))


@pytest.mark.slow
def test_steps_of_adam_per_fan_in_are_the_same_at_any_width():
    def change(width, transformation):
        keys, n = jax.random.split(jax.random.key(int(width)), 3), int(width)
        sizes = ((n, 1), (n, n), (1, n))
        model = DeepLinear([jax.random.normal(k, s) / s[1] ** 0.5 for k, s in zip(keys, sizes, strict=True)])
        rule = tx.GradientDescent(1e-3, lambda rate: optax.chain(optax.adam(rate), transformation))
        moved = tx.train(model, LinearTask(jnp.full((1, 1), 5.0)), rule, [1e-3]).model
        features = (moved.weights[1] - model.weights[1]) @ model.weights[0]
        return jnp.sqrt(jnp.mean(features**2))

    per_fan_in = tx.rules.scale_by_fan_in(lambda m: m.weights[1], base_fan_in=20)
    plain, even = (
        tx.scaling(lambda n, t=t: change(n, t), (20, 80, 320)).exponent for t in (optax.identity(), per_fan_in)
    )
    assert float(plain) == pytest.approx(1.0, abs=0.1) and float(even) == pytest.approx(0.0, abs=0.1)
