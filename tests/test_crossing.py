"""First crossings of a level, on curves whose crossings are known."""

import inspect

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax.analysis import crossing_times


def test_sigmoids():
    ts, halves = jnp.linspace(0, 10, 101), jnp.asarray([2.03, 5.5, 7.777])
    curves = jax.nn.sigmoid(4 * (ts[:, None] - halves[None, :]))
    np.testing.assert_allclose(crossing_times(ts, curves, 0.5), halves, atol=2e-5)
    # The error falls with the fourth power of the spacing: the cubic is in use.
    coarse = jnp.abs(crossing_times(ts[::4], curves[::4], 0.5) - halves)
    fine = jnp.abs(crossing_times(ts[::2], curves[::2], 0.5) - halves)
    assert float(jnp.max(coarse)) > 8 * float(jnp.max(fine))


def test_one_level_each_and_falling_curves():
    ts = jnp.linspace(0, 4, 41)
    curves = jnp.stack([jnp.exp(-ts), ts, -ts], axis=1)
    found = crossing_times(ts, curves, jnp.asarray([0.1, 1.234, 1.0]))
    np.testing.assert_allclose(found[:2], [np.log(10), 1.234], rtol=1e-6)
    assert jnp.isnan(found[2])


def test_first_of_many():
    ts = jnp.linspace(0, 20, 401)
    assert float(crossing_times(ts, jnp.sin(ts)[:, None], 0.5)[0]) == pytest.approx(np.pi / 6, abs=1e-5)


def test_corners_fall_back_to_lines():
    ts = jnp.arange(6.0)
    curve = jnp.asarray([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])[:, None]
    assert float(crossing_times(ts, curve, 0.25)[0]) == pytest.approx(2.25)
    assert float(crossing_times(ts[:2], ts[:2, None], 0.25)[0]) == pytest.approx(0.25)


def test_nothing_after_an_event_counts():
    ts = jnp.arange(6.0)
    curve = jnp.asarray([0.0, 0.1, 0.2, jnp.inf, jnp.inf, jnp.inf])[:, None]
    assert jnp.isnan(crossing_times(ts, curve, 0.5)[0])
    assert float(crossing_times(ts, curve, 0.15)[0]) == pytest.approx(1.5)
    assert jnp.isnan(crossing_times(ts, jnp.full((6, 1), jnp.nan), 0.5)[0])


@hypothesis.given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=8), st.floats(0.05, 0.95))
@hypothesis.settings(deadline=None, max_examples=30)
def test_a_crossing_lies_where_the_curve_crosses(steps, level):
    values = np.cumsum(steps) / max(np.sum(steps), 1e-3)
    # One shape, so that everything compiles once.
    values = np.interp(np.linspace(0, len(steps) - 1, 8), np.arange(len(steps)), values)
    found = float(crossing_times(jnp.arange(8.0), jnp.asarray(values)[:, None], level)[0])
    reached = np.flatnonzero((values[1:] >= level) & (values[:-1] < level))
    if reached.size == 0:
        assert np.isnan(found)
    else:
        assert reached[0] <= found <= reached[0] + 1


def test_refuses():
    for ts, values in ((jnp.ones(1), jnp.ones((1, 1))), (jnp.arange(3.0), jnp.ones((2, 1)))):
        with pytest.raises(ValueError, match=r"shape \(times, curves\)"):
            inspect.unwrap(crossing_times)(ts, values, 0.5)
