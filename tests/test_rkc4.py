"""RKC4: its table, against order conditions written as problems, polynomials and the script; its rounding errors."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax.solvers import RKC4
from tractax.solvers.rkc4 import coefficients

SOLVER = RKC4()
CHOICES = jnp.arange(len(SOLVER.stages), dtype=jnp.int32)


def steps(field, y0, h):
    """One step with every method: the states and the error estimates."""
    f0 = field(jnp.zeros_like(h), y0)
    advance = jax.vmap(lambda choice: SOLVER.advance(choice, jnp.asarray(True), field, y0, f0, h))
    y1, _, error = jax.jit(advance)(CHOICES)
    return y1, error


@pytest.mark.parametrize("autonomous", [True, False])
def test_order_conditions(autonomous):
    # One integral for each rooted tree of up to four vertices: order four is exact on all, order three on the first four.
    def field(x, y):
        t = y[0] if autonomous else x
        return jnp.stack([jnp.ones_like(t), t, t**2, y[1], t**3, t * y[1], y[2], y[3]])

    exact = np.asarray([1, 1 / 2, 1 / 3, 1 / 6, 1 / 4, 1 / 8, 1 / 12, 1 / 24])
    y1, error = steps(field, jnp.zeros(8), jnp.asarray(1.0))
    np.testing.assert_allclose(y1, np.broadcast_to(exact, y1.shape), atol=1e-12)
    # Rounding grows with the number of stages.
    assert np.all(np.abs(error[:, :4]) <= 2e-15 * SOLVER.stages[:, None])
    assert np.all(np.abs(error[:, 6]) > 1e-3)


def test_script_reproduces_the_table():
    with np.load(coefficients.TABLE) as table:
        sizes, intervals, b = table["sizes"], table["intervals"], table["b"]
        weights = np.split(table["weights"], np.cumsum(sizes - 1)[:-1])
    assert tuple(sizes) == coefficients.SIZES
    for i in (0, 12, 26):
        computed, computed_b = coefficients.sums(int(sizes[i]), float(intervals[i]))
        scale = np.abs(weights[i]).max()
        np.testing.assert_allclose(computed / scale, weights[i] / scale, atol=1e-12)
        assert computed_b == pytest.approx(b[i], rel=1e-12)
    interval, computed, _ = coefficients.longest(9)
    assert interval == pytest.approx(intervals[4], rel=1e-12)


def test_stages_are_bounded_and_stay_within_the_step():
    for size, interval in zip(SOLVER.stages, SOLVER.intervals, strict=True):
        rows = coefficients.stages(int(size), float(interval))
        assert np.all(np.diff(rows[1:, 4]) > 0)
        assert rows[:, 4].min() > 0
        assert rows[-1, 4] == 1
        # After the first, they are accurate to second order and decay everywhere on the stability interval.
        z = -interval * np.linspace(0, 1, 501) ** 2
        before, stage = np.ones_like(z), 1 + rows[0, 2] * z
        for mu, nu, kappa, gamma, _ in rows[1:]:
            stage, before = 1 + mu * (stage - 1) + nu * (before - 1) + z * (kappa * stage + gamma), stage
            assert np.abs(stage).max() < 1 + 1e-12


def test_rounding_errors_are_those_of_the_vector_field():
    # As stiff as the solver lets it be, in a rotated frame, so that every component of the state is rounded.
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    start = rng.normal(size=40)

    def last(dtype):
        y0, turn = jnp.asarray(start, dtype), jnp.asarray(rotation, dtype)
        spectrum = jnp.asarray(-0.8 * np.geomspace(1e-5, 1, 40), dtype)
        zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)

        def step(choice):
            z = spectrum * jnp.asarray(SOLVER.intervals, dtype)[choice]

            def field(x, y):
                return jnp.matmul(turn, z * jnp.matmul(turn.T, y, precision="highest"), precision="highest")

            return SOLVER.advance(choice, jnp.asarray(True), field, y0, field(zero, y0), one)[0]

        return np.asarray(jax.jit(jax.vmap(step))(CHOICES), np.float64)

    error = np.linalg.norm(last(jnp.float32) - last(jnp.float64), axis=1) / np.linalg.norm(start)
    # Rounding the state once already changes h f by this much in the stiffest mode.
    assert np.all(error < 3 * np.finfo(np.float32).eps * np.maximum(SOLVER.intervals, 10))


@pytest.mark.slow
def test_global_order():
    def field(t, y, args):
        return jnp.stack([jnp.cos(3 * t) * y[1], jnp.sin(y[0]) - t * y[1] ** 2])

    @eqx.filter_jit
    def end(solver, dt0):
        constant = diffrax.ConstantStepSize()
        y0 = jnp.asarray([0.7, -1.1])
        return diffrax.diffeqsolve(diffrax.ODETerm(field), solver, 0.0, 1.0, dt0, y0, stepsize_controller=constant).ys[0]

    exact = end(diffrax.Dopri8(), 1 / 200)
    sizes = np.asarray([1 / 8, 1 / 16, 1 / 32, 1 / 64])
    errors = [np.linalg.norm(end(SOLVER, h) - exact) for h in sizes]
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(4, abs=0.15)


def test_order_of_slaved_stiff_modes():
    # Prothero and Robinson's problem, far beyond the stability of classical methods.
    stiffness = jnp.asarray([1e3, 1e4, 1e5])

    @jax.jit
    def error(dt0):
        def field(t, y, args):
            return -stiffness * (y - jnp.sin(t)) + jnp.cos(t)

        constant = diffrax.ConstantStepSize()
        term = diffrax.ODETerm(field)
        end = diffrax.diffeqsolve(term, SOLVER, 0.0, 1.0, dt0, jnp.zeros(3), stepsize_controller=constant).ys[0]
        return jnp.abs(end - jnp.sin(1.0))

    sizes = np.asarray([0.2, 0.1, 0.05])
    errors = np.stack([error(h) for h in sizes])
    np.testing.assert_allclose(np.polyfit(np.log(sizes), np.log(errors), 1)[0], 4, atol=0.3)
