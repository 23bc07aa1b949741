"""Flows of Adam, momentum and reshuffled batches, and drift-adjusted learning rates."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import runge_kutta

import tractax as tx
from tractax.rules import (
    AdamFlow,
    ModifiedFlow,
    ReshuffledDescent,
    ReshuffledFlow,
    drift_adjusted,
    drift_adjusted_rate,
    momentum_start,
)


class Point(eqx.Module):
    """A model that is nothing but its parameters."""

    w: jax.Array


def _landscape(w):
    x, y, z = w
    return x**2 / 2 + y**4 / 4 + z**2 + x * y**2 * z / 2 + jnp.sin(x + z) + x**3 * z / 5


class Landscape(tx.AbstractTask):
    """A loss of three numbers whose derivatives of every order differ from zero."""

    def loss(self, model):
        return _landscape(model.w)


class Split(tx.AbstractSampledTask):
    """The same loss, tilted and bent in another way by each of the batches."""

    tilts: jax.Array

    def loss(self, model):
        return jnp.mean(jax.vmap(lambda tilt: self.batch_loss(model, tilt))(self.tilts))

    def sample(self, key, batch):
        return self.tilts[jax.random.randint(key, (), 0, batch)]

    def batch_loss(self, model, batch):
        return _landscape(model.w) + batch @ model.w + jnp.sum(batch * model.w**2)


START = Point(jnp.asarray([0.7, -0.4, 0.9]))
BATCHES = jnp.asarray([[0.5, -0.3, 0.2], [-0.8, 0.4, 0.3], [0.1, 0.6, -0.7]])
RATES = [0.04, 0.02, 0.01, 0.005]
LOW_RATES = [0.01, 0.005, 0.0025, 0.00125]


def _w(model):
    return model.w


def _after(rule, task, t, start=START):
    """The end of a run; flows by 50 steps of Runge and Kutta, which compile faster than an adaptive solver."""
    if isinstance(rule, tx.AbstractStepRule):
        return tx.train(start, task, rule, t[None], observe=_w).observed[0]
    return runge_kutta(rule, start, task, t, Point(None)).w


def _order(error, rates=RATES):
    """Errors of all learning rates, side by side in one program."""
    errors = dict(zip(rates, jax.jit(jax.vmap(error))(jnp.asarray(rates)).tolist(), strict=True))
    return float(tx.scaling(errors.__getitem__, rates, correction=1.0).exponent)


ADAM = functools.partial(optax.adam, b1=0.6, b2=0.8, eps=0.0, eps_root=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 1])
def test_adam(order):
    t = jnp.asarray(1.0)

    def error(h):
        flow = AdamFlow(h, 0.6, 0.8, eps_root=0.05, order=order)
        return jnp.linalg.norm(_after(tx.GradientDescent(h, ADAM), Landscape(), t) - _after(flow, Landscape(), t))

    assert _order(error, LOW_RATES) == pytest.approx(order, abs=0.1)


@pytest.mark.slow
def test_adam_field_as_it_is_written():
    h, b1, b2, eps = 0.1, 0.9, 0.99, 0.3
    g = jax.grad(_landscape)(START.w)
    slope = jax.grad(lambda w: jnp.sum(jnp.sqrt(jax.grad(_landscape)(w) ** 2 + eps)))(START.w)
    b = h / 2 * ((1 + b1) / (1 - b1) - (1 + b2) / (1 - b2) * (1 - eps / (g**2 + eps))) * slope
    field = AdamFlow(h, b1, b2, eps_root=eps).vector_field(0.0, START, tx.Objective(Landscape(), Point(None)))
    np.testing.assert_allclose(field.w, -(g + b) / jnp.sqrt(g**2 + eps), rtol=1e-12)


@pytest.mark.parametrize("start", ["rest", pytest.param("lag ignored", marks=pytest.mark.slow)])
def test_momentum(start):
    beta, t = 0.5, jnp.asarray(1.0)

    def error(h):
        descent = tx.GradientDescent(h, functools.partial(optax.sgd, momentum=beta), time_per_step=h / (1 - beta))
        begin = momentum_start(START, Landscape(), h, beta) if start == "rest" else START
        flow = ModifiedFlow.from_momentum(h, beta)
        return jnp.linalg.norm(_after(descent, Landscape(), t) - _after(flow, Landscape(), t, begin))

    assert _order(error, LOW_RATES) == pytest.approx(2 if start == "rest" else 1, abs=0.1)


@pytest.mark.slow
def test_momentum_under_way():
    # With the velocity that it will have, nothing lags.
    beta = 0.5

    def error(h):
        def step(carry, _):
            w, v = carry
            v = beta * v - h * jax.grad(_landscape)(w)
            return (w + v, v), w + v

        start = (START.w, -h * jax.grad(_landscape)(START.w) / (1 - beta))
        steps = jax.lax.scan(step, start, length=400)[1]
        # The time 1 is reached after (1 - β)/h steps.
        w = steps[jnp.rint((1 - beta) / h).astype(int) - 1]
        return jnp.linalg.norm(w - _after(ModifiedFlow.from_momentum(h, beta), Landscape(), jnp.asarray(1.0)))

    assert _order(error, LOW_RATES) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("order", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_an_epoch_averaged_over_all_orders(order):
    task = Split(BATCHES)
    orders = jnp.asarray(list(itertools.permutations(range(3))))

    def error(h):
        def epoch(order):
            w = START
            for i in range(3):
                gradient = jax.grad(task.batch_loss)(w, BATCHES[order[i]])
                w = jax.tree.map(lambda w, g: w - h * g, w, gradient)
            return w.w

        mean = jnp.mean(jax.vmap(epoch)(orders), axis=0)
        return jnp.linalg.norm(mean - _after(ReshuffledFlow(h, BATCHES, order), task, 3 * h))

    assert _order(error) == pytest.approx(order + 1, abs=0.1)


@pytest.mark.slow
def test_reshuffled_field_descends_the_modified_loss():
    task, h = Split(BATCHES), 0.2

    def modified(w):
        gradients = jax.vmap(lambda batch: jax.grad(task.batch_loss)(Point(w), batch).w)(BATCHES)
        return task.loss(Point(w)) + h / 12 * jnp.sum(gradients**2)

    field = ReshuffledFlow(h, BATCHES).vector_field(0.0, START, tx.Objective(task, Point(None)))
    np.testing.assert_allclose(field.w, -jax.grad(modified)(START.w), rtol=1e-12)


def test_every_epoch_sees_every_batch_once():
    # On a linear loss the end of an epoch does not depend on the order, its inside does.
    class Linear(tx.AbstractSampledTask):
        def loss(self, model):
            return jnp.mean(BATCHES @ model.w)

        def sample(self, key, batch):
            raise NotImplementedError

        def batch_loss(self, model, batch):
            return batch @ model.w

    rule, ts = ReshuffledDescent(0.1, BATCHES), 0.1 * jnp.arange(61.0)
    ws = tx.train(START, Linear(), rule, ts, observe=_w, key=jax.random.key(3)).observed
    epochs = START.w[None, :] - 0.1 * jnp.arange(21.0)[:, None] * jnp.sum(BATCHES, axis=0)[None, :]
    np.testing.assert_allclose(ws[::3], epochs, rtol=1e-12, atol=1e-13)
    firsts = {tuple(np.round(-10 * step, 8)) for step in np.asarray(ws[1::3] - ws[:-1:3])}
    assert firsts == {tuple(np.asarray(batch)) for batch in BATCHES}


class Quadratic(tx.AbstractTask):
    def loss(self, model):
        return 2 * model.w[0] ** 2 + model.w[1] ** 2 / 2


def test_drift_adjusted_rate():
    loss = _landscape
    g, hessian = jax.jit(lambda w: (jax.grad(loss)(w), jax.hessian(loss)(w)))(START.w)
    bend = np.linalg.norm(hessian @ g / np.linalg.norm(g))
    rate = jax.jit(functools.partial(drift_adjusted_rate, loss))
    for power in (0.0, 0.5, 1.0):
        assert float(rate(START.w, power, 10.0)) == pytest.approx(2 / bend**power, rel=1e-12)
    assert float(rate(START.w, 1.0, 0.1)) == pytest.approx(0.1)
    # On an eigenvector of curvature 4; at the minimum; where nothing bends.
    rate = jax.jit(functools.partial(drift_adjusted_rate, lambda w: Quadratic().loss(Point(w))))
    assert float(rate(jnp.asarray([0.3, 0.0]))) == pytest.approx(0.5)
    assert float(rate(jnp.zeros(2))) == 5.0
    assert float(jax.jit(functools.partial(drift_adjusted_rate, jnp.sum))(jnp.ones(2))) == 5.0


def test_drift_adjusted_steps():
    # At the power 1 an eigenvector's coordinate changes its sign at every step; at the power 2 it shrinks here.
    start = Point(jnp.asarray([0.3, 0.0]))
    for power, factor in ((1.0, -1.0), (2.0, 1 - 4 * 2 / 16)):
        rule = tx.GradientDescent(1.0, drift_adjusted(power))
        run = tx.train(start, Quadratic(), rule, [0.0, 1.0, 4.0], observe=_w)
        np.testing.assert_allclose(run.observed[:, 0], 0.3 * factor ** np.asarray([0, 1, 4]), rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AdamFlow(0.0, eps_root=0.1), "`learning_rate` must be positive"),
        (lambda: AdamFlow(0.1, 1.0, eps_root=0.1), "`b1` must lie below 1"),
        (lambda: AdamFlow(0.1, b2=-0.1, eps_root=0.1), "`b2` must be non-negative"),
        (lambda: AdamFlow(0.1, eps_root=0.0), "`eps_root` must be positive"),
        (lambda: AdamFlow(0.1, eps_root=0.1, order=3), "`order` must be a whole number from 1 to 2; got 3"),
        (lambda: ModifiedFlow.from_momentum(0.1, 1.0), "`momentum` must lie below 1"),
        (lambda: momentum_start(START, Landscape(), -0.1, 0.5), "`learning_rate` must be positive"),
        (lambda: ReshuffledDescent(0.1, jnp.zeros((0, 3))), "`batches` must hold arrays with one leading axis"),
        (lambda: ReshuffledDescent(0.1, jnp.asarray(1.0)), "`batches` must hold arrays with one leading axis"),
        (lambda: ReshuffledFlow(0.1, BATCHES, 3), "`order` must be a whole number from 1 to 2"),
        (lambda: tx.train(START, Landscape(), ReshuffledFlow(0.1, BATCHES), [1.0]), "`task` must have batches"),
        (lambda: tx.train(START, Split(BATCHES), ReshuffledDescent(0.1, BATCHES), [1.0]), "`key` must be a JAX PRNG"),
        (lambda: drift_adjusted(-1.0), "`power` must be non-negative"),
        (lambda: drift_adjusted(1.0, 0.0), "`maximum` must be positive"),
        (lambda: drift_adjusted().update(START.w, optax.EmptyState(), START.w), "value_fn=loss"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
