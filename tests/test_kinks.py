"""Kinks in one dimension and plateaus of curves: known answers, merging, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.analysis import plateaus
from tractax.two_layer import LeakyReLU, TwoLayerNetwork, count_kinks, kinks


def network(slope=0.0):
    # Kinks at -1, 0.5 (twice), 3 and nowhere; the second at 0.5 cancels most of the first.
    first = np.asarray([[2.0], [-2.0], [4.0], [1.0], [0.0]])
    bias = np.asarray([2.0, 1.0, -2.0, -3.0, 1.0])
    return TwoLayerNetwork(first, np.asarray([1.0, 3.0, -1.4, 1.0, 5.0]), LeakyReLU(slope), bias=bias)


def test_kinks_are_those_of_the_function():
    for slope in (0.0, 0.2):
        model = network(slope)
        found = kinks(model)
        np.testing.assert_allclose(found.positions, [-1.0, 0.5, 0.5, 3.0, np.inf])
        # The slope of the function on both sides of each kink.
        slopes = [float(jax.grad(lambda x, m=model: m(x[None])[0])(jnp.asarray(x))) for x in (-2.0, 0.0, 1.0, 4.0)]
        bends = np.asarray(found.bends)
        np.testing.assert_allclose(np.diff(slopes), [bends[0], bends[1] + bends[2], bends[3]], rtol=1e-13)
    without = TwoLayerNetwork(np.asarray([[1.0], [-2.0]]), np.ones(2))
    np.testing.assert_array_equal(kinks(without).positions, [0.0, 0.0])


def test_counting():
    count = jax.jit(lambda model, upper, floor: count_kinks(model, -2.0, upper, apart=0.1, floor=floor))
    model = network()
    assert [int(count(model, upper, 0.1)) for upper in (-1.5, 0.0, 2.0, 5.0)] == [0, 1, 2, 3]
    # The kinks at 0.5 bend by 6 and -5.6.
    assert int(count(model, 2.0, 0.5)) == 1
    assert int(count_kinks(model, -2.0, 2.0, apart=2.0, floor=0.1)) == 1
    assert int(count_kinks(model, -2.0, 2.0, apart=0.0, floor=0.1)) == 2
    assert int(count_kinks(model, -2.0, -1.0, apart=0.1, floor=0.0)) == 0


def test_plateaus():
    ts = np.linspace(0.0, 10.0, 1001)
    values = 2.0 - 1.2 * (1 + np.tanh(20 * (ts - 3))) / 2 - 0.8 * (1 + np.tanh(20 * (ts - 5))) / 2
    found = plateaus(ts, values, rate=0.01, duration=1.0)
    np.testing.assert_allclose(found.level, [2.0, 0.8, 0.0], atol=1e-3)
    np.testing.assert_allclose([found.start, found.end], [[0.0, 3.2, 5.2], [2.8, 4.8, 10.0]], atol=0.15)
    assert plateaus(ts, values, rate=0.01, duration=2.0).level.size == 2
    assert plateaus(ts, 1.0 + ts, rate=0.5, duration=1.0).level.size == 0
    assert plateaus(ts, np.ones_like(ts), rate=0.5, duration=10.0).level.tolist() == [1.0]


def test_refusals():
    wide, pair = TwoLayerNetwork(np.ones((2, 2)), np.ones(2)), np.asarray([0.0, 1.0])
    for call, message in (
        (lambda: kinks(wide), "`model` must have one input and one output; got 2 and 1"),
        (lambda: kinks(TwoLayerNetwork([[1.0]], [1.0], "tanh")), r"\(leaky\) rectifiers to have kinks"),
        (
            lambda: count_kinks(network(), 1.0, 0.0, apart=0.0, floor=0.0),
            "`lower` must be below `upper`; got 1.0 and 0.0",
        ),
        (lambda: count_kinks(network(), np.zeros(2), 1.0, apart=0.0, floor=0.0), "`lower` must be one number"),
        (lambda: count_kinks(network(), 0.0, 1.0, apart=-1.0, floor=0.0), "`apart` must be non-negative"),
        (lambda: count_kinks(network(), 0.0, 1.0, apart=0.0, floor=-1.0), "`floor` must be non-negative"),
        (lambda: plateaus(pair, np.ones(1), rate=1.0, duration=1.0), "`values` must have shape"),
        (lambda: plateaus(0 * pair, pair, rate=1.0, duration=1.0), "`ts` must increase"),
        (lambda: plateaus(pair, pair, rate=0.0, duration=1.0), "`rate` must be positive"),
        (lambda: plateaus(pair, pair, rate=1.0, duration=-1.0), "`duration` must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kink_plateaus", "orthogonal_plateaus"])
def test_catalogue_entries(name):
    assert tx.verify(name).passed


@pytest.mark.slow
def test_a_target_of_two_kinks_ends_with_two():
    # All sixteen units come to share the two kinks of the target, whatever the draw.
    x = np.linspace(-2.0, 2.0, 41)
    task = tx.deep_linear.RegressionTask(x[:, None], np.interp(x, [-2, -0.7, 0.7, 2], [2, -1, 1, -2]))
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        weights = 1e-4 * rng.normal(size=(16, 2)) / 4
        readout = np.linalg.norm(weights, axis=1) * rng.choice([-1, 1], 16)
        model = TwoLayerNetwork(weights[:, :1], readout, bias=weights[:, 1])
        run = tx.train(model, task, tx.GradientDescent(0.02), [0.0, 15.0, 400.0])
        assert float(run.observed[1]) == pytest.approx(float(run.observed[0]), rel=0.02)
        assert float(run.observed[2]) < 1e-4 * float(run.observed[0])
        assert int(count_kinks(run.model, -2.0, 2.0, apart=0.2, floor=0.05)) == 2
