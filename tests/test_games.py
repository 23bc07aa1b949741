"""Two players: the bilinear game exactly, orders of the flows on another game, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from toys import runge_kutta

import tractax as tx
from tractax.rules import AbstractGame, BilinearDescent, BilinearGame, GameDescent, GameFlow, Players

SCALAR = BilinearGame([[1.0]])
PAIR = Players(jnp.asarray([0.6]), jnp.asarray([-0.3]))
MATRIX = BilinearGame([[1.0, -0.4, 0.2], [0.3, 0.9, -0.5]])
VECTORS = Players(jnp.asarray([0.6, -0.2]), jnp.asarray([0.3, 1.0, -0.7]))


class Curved(AbstractGame):
    """Two losses without any relation, of two numbers and one."""

    def losses(self, model):
        (x, y), (z,) = model.first, model.second
        return x**4 / 4 + x * y * z + jnp.cos(y) - 0.3 * x, z**2 / 2 - x * y * z + z**4 / 20


CURVED = Players(jnp.asarray([0.5, -0.3]), jnp.asarray([0.8]))


def _flat(model):
    return ravel_pytree(model)[0]


@pytest.mark.parametrize("alternating", [pytest.param(False, marks=pytest.mark.slow), True])
def test_bilinear_steps_against_the_definition(alternating):
    h, a, b = 0.3, 1.3, 0.6
    rule = GameDescent(h, (a, b), alternating=alternating)
    solution = BilinearDescent.from_model(VECTORS, MATRIX, rule)
    x, y = np.asarray(VECTORS.first), np.asarray(VECTORS.second)
    matrix = np.asarray(MATRIX.matrix)
    states = []
    for _ in range(40):
        states.append(np.concatenate([x, y]))
        moved = x - h * a * matrix @ y
        y = y + h * b * matrix.T @ (moved if alternating else x)
        x = moved
    run = tx.train(VECTORS, MATRIX, rule, h * jnp.arange(40.0), observe=solution.reduce)
    np.testing.assert_allclose(jnp.concatenate([run.observed.first, run.observed.second], 1), states, rtol=0, atol=1e-13)
    assert float(tx.compare(solution, run).worst) < 1e-13
    assert float(tx.residual(solution, [0.0, 0.7, 20.0]).worst) < 1e-13


def test_invariants_of_the_scalar_game():
    h = 0.25
    ts = h * jnp.asarray([0.0, 1.0, 7.0, 100.0])
    z = tx.train(PAIR, SCALAR, GameDescent(h), ts, observe=_flat).observed
    grown = (1 + h**2) ** np.asarray([0, 1, 7, 100]) * np.sum(np.square(z[0]))
    np.testing.assert_allclose(np.sum(np.square(z), axis=1), grown, rtol=1e-12)
    rule = GameDescent(h, alternating=True)
    solution = BilinearDescent.from_model(PAIR, SCALAR, rule)
    z = tx.train(PAIR, SCALAR, rule, ts, observe=_flat).observed
    ellipse = z[:, 0] ** 2 + z[:, 1] ** 2 - h * z[:, 0] * z[:, 1]
    np.testing.assert_allclose(ellipse, ellipse[0], rtol=1e-13)
    assert float(solution.invariant(PAIR)[0]) == pytest.approx(float(ellipse[0]), rel=1e-14)
    late = solution.evaluate(1e6)
    assert float(solution.invariant(late)[0]) == pytest.approx(float(ellipse[0]), rel=1e-12)


@pytest.mark.parametrize(
    ("alternating", "order"), [(True, 2), pytest.param(False, 2, marks=pytest.mark.slow), (False, 1)]
)
def test_bilinear_flows(alternating, order):
    rule = GameFlow(0.4, (1.3, 0.6), alternating=alternating, order=order)
    solution = BilinearDescent.from_model(VECTORS, MATRIX, rule)

    # The closed form against the rule's own field, which is made by automatic differentiation.
    def field(t, state):
        return rule.vector_field(t, state, tx.Objective(MATRIX, Players(None, None)))

    assert float(tx.residual(solution, [0.0, 0.7, 5.0], vector_field=field).worst) < 1e-13
    np.testing.assert_allclose(_flat(solution.evaluate(0.0)), _flat(VECTORS), rtol=1e-14)


@jax.jit
def _drift(rate, rule, flow):
    """Between steps and a flow after the time 1."""
    steps = tx.train(CURVED, Curved(), rule, [1.0], observe=_flat).observed[0]
    return jnp.linalg.norm(steps - _flat(runge_kutta(flow, CURVED, Curved(), 1.0, Players(None, None))))


@pytest.mark.parametrize(
    ("alternating", "order"),
    [(True, 2), *[pytest.param(*case, marks=pytest.mark.slow) for case in ((False, 2), (False, 1), (True, 1))]],
)
def test_orders(alternating, order):
    rates = (1.3, 0.7)

    def drift(h):
        rule = GameDescent(h, rates, alternating=alternating)
        return _drift(h, rule, GameFlow(h, rates, alternating=alternating, order=order))

    fit = tx.scaling(drift, [0.1, 0.05, 0.025, 0.0125], correction=1.0)
    assert float(fit.exponent) == pytest.approx(order, abs=0.1)


@pytest.mark.slow
def test_float32_and_learning_rates_side_by_side():
    players = jax.tree.map(lambda x: x.astype(jnp.float32), CURVED)

    @jax.jit
    @jax.vmap
    def velocity(h):
        flow = GameFlow(h, alternating=True)
        return _flat(flow.vector_field(0.0, players, tx.Objective(Curved(), Players(None, None))))

    found = velocity(jnp.asarray([0.1, 0.2]))
    assert found.dtype == jnp.float32 and found.shape == (2, 3)
    assert not jnp.allclose(found[0], found[1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GameDescent(0.0), "`learning_rate` must be positive"),
        (lambda: GameDescent(0.1, (1.0, -1.0)), "`rates` must be non-negative"),
        (lambda: GameDescent(0.1, 1.0), "`rates` must be two numbers"),
        (lambda: GameFlow(0.1, order=3), "`order` must be a whole number from 1 to 2; got 3"),
        (lambda: GameDescent(0.1).init(jnp.ones(2)), "`model` must be a pair"),
        (lambda: tx.train(PAIR, Plain(), GameDescent(0.1), [1.0]), "`task` must be a game"),
        (lambda: BilinearGame([[jnp.nan]]), "`matrix` must be finite"),
        (lambda: BilinearDescent.from_model(PAIR, MATRIX, GameDescent(0.1)), "vectors of shapes"),
        (lambda: BilinearDescent.from_model(PAIR, SCALAR), "`rule` must be GameDescent or GameFlow"),
        (lambda: BilinearDescent.from_model(PAIR, Curved(), GameDescent(0.1)), "`task` must be a BilinearGame"),
        (lambda: BilinearDescent.from_model(PAIR, SCALAR, GameDescent(0.1, (0.0, 1.0))), "both players learn"),
        (lambda: BilinearDescent.from_model(PAIR, SCALAR, GameDescent(2.5, alternating=True)), "FAILS"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


class Plain(tx.AbstractTask):
    def loss(self, model):
        return jnp.sum(model.first**2)
