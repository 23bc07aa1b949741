"""Reduced flows: integrated once, then functions of time up to their horizon."""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.core import AbstractReducedFlow, FlowPath, Kind, integrate_flow


class Oscillation(eqx.Module):
    position: jax.Array
    velocity: jax.Array


def field(frequency, t, y):
    del t
    return Oscillation(y.velocity, -(frequency**2) * y.position)


class Oscillator(AbstractReducedFlow[Oscillation]):
    path: FlowPath
    frequency: jax.Array
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def of(cls, frequency, t1, **options):
        frequency = jnp.asarray(frequency)
        start = Oscillation(jnp.ones((), frequency.dtype), jnp.zeros((), frequency.dtype))
        return cls(integrate_flow(eqx.Partial(field, frequency), start, t1, **options), frequency)

    def reduce(self, model):
        return model

    def vector_field(self, t, state):
        return field(self.frequency, t, state)


def test_solves_and_satisfies_its_equation():
    solution = Oscillator.of(2.0, 7.0)
    ts = jnp.linspace(0.0, 7.0, 40)
    np.testing.assert_allclose(jax.vmap(solution.evaluate)(ts).position, jnp.cos(2 * ts), atol=1e-9)
    assert 0 < float(tx.residual(solution, ts).worst) < 1e-7
    # The residual sees a solution of another equation.
    assert float(tx.residual(solution, ts, vector_field=eqx.Partial(field, 2.001)).worst) > 1e-4


def test_horizon():
    solution = Oscillator.of(2.0, 7.0)
    assert solution.t0 == 0.0 and float(solution.t1) == 7.0
    assert float(solution.evaluate(7.0).position) == pytest.approx(np.cos(14.0), abs=1e-9)
    with pytest.raises(ValueError, match="horizon of Oscillator"):
        solution.evaluate(7.1)
    with pytest.raises(ValueError, match="t >= 0"):
        solution.evaluate(-0.1)
    with pytest.raises(Exception, match="horizon"):
        jax.block_until_ready(eqx.filter_jit(lambda s, t: s.evaluate(t))(solution, 7.1))


@pytest.mark.slow
def test_derivatives_in_parameters_and_time():
    def position(frequency, t, **options):
        return Oscillator.of(frequency, 3.0, **options).evaluate(t).position

    assert float(jax.grad(position)(2.0, 1.3)) == pytest.approx(-1.3 * np.sin(2.6), abs=1e-8)
    forward = jax.jacfwd(lambda w: position(w, 1.3, adjoint=diffrax.ForwardMode()))
    assert float(forward(2.0)) == pytest.approx(-1.3 * np.sin(2.6), abs=1e-8)
    assert float(jax.grad(position, argnums=1)(2.0, 1.3)) == pytest.approx(-2 * np.sin(2.6), abs=1e-8)


def test_refuses_what_cannot_be_integrated():
    with pytest.raises(ValueError, match="max_steps"):
        Oscillator.of(2.0, 1e4, max_steps=64)
    with pytest.raises(ValueError, match="`t1` must be positive"):
        Oscillator.of(2.0, 0.0)
    with pytest.raises(ValueError, match="`t1` must be one number"):
        Oscillator.of(2.0, jnp.ones(2))
    with pytest.raises(ValueError, match="`max_steps` must be a whole number of at least 1; got 0"):
        Oscillator.of(2.0, 1.0, max_steps=0)
    with pytest.raises(ValueError, match="diverges"):
        integrate_flow(lambda t, y: y**2, jnp.asarray(1.0), 2.0)
