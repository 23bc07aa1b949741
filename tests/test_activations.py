"""Gaussian averages of activations: reference values, repeated fields, quadrature and Monte Carlo, degenerate input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from tractax.analysis import Custom, Erf, Linear, ReLU

COVARIANCE = jnp.asarray([[1, 0.3, 0.2, -0.1], [0.3, 0.8, 0.4, 0.15], [0.2, 0.4, 1.2, 0.25], [-0.1, 0.15, 0.25, 0.9]])
N = [jnp.asarray(n) for n in range(4)]


@pytest.mark.parametrize(
    ("activation", "pair", "slopes", "drift", "diffusion"),
    [
        (Erf(), 0.1010826241043, 0.3398024960835, 0.1128076630581, 0.0245640340786),
        (ReLU(), 0.2254375751909, 0.3044374547583, 0.1631131302282, 0.1031069190502),
        (Linear(), 0.3, 1.0, 0.4, 0.25),
    ],
)
def test_reference_averages(activation, pair, slopes, drift, diffusion):
    found = (
        activation.pair(COVARIANCE, *N[:2]),
        activation.slopes(COVARIANCE, *N[:2]),
        activation.drift(COVARIANCE, *N[:3]),
        activation.diffusion(COVARIANCE, *N),
    )
    np.testing.assert_allclose(jnp.stack(found), [pair, slopes, drift, diffusion], rtol=1e-11)


def test_smooth_function_by_quadrature():
    # A narrow argument, for which 16 nodes are exact to rounding; repeated fields have a singular covariance.
    small = 0.05 * COVARIANCE
    by_nodes = Custom(Erf())
    index = np.asarray([[0, 1, 2, 3], [3, 0, 3, 1]]).T
    np.testing.assert_allclose(by_nodes.pair(small, *index[:2]), Erf().pair(small, *index[:2]), rtol=1e-11)
    np.testing.assert_allclose(by_nodes.slopes(small, *index[:2]), Erf().slopes(small, *index[:2]), rtol=1e-11)
    np.testing.assert_allclose(by_nodes.drift(small, *index[:3]), Erf().drift(small, *index[:3]), rtol=1e-11)
    np.testing.assert_allclose(by_nodes.diffusion(small, *index), Erf().diffusion(small, *index), rtol=1e-11)
    assert float(by_nodes.error(small)) < 1e-11
    assert float(by_nodes.error(10 * COVARIANCE)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("index", [(0, 1, 2, 2), (1, 1, 2, 2), (0, 1, 0, 1), (2, 2, 2, 2)])
def test_rectifier_with_repeated_fields(index):
    # The distinct fields are two or fewer (or u_c² is one): plain SciPy quadrature over the positive quadrant.
    c, d = index[2:]
    fields = sorted(set(index))
    table = np.asarray(COVARIANCE)[np.ix_(fields, fields)]
    inverse, norm = np.linalg.inv(table), np.sqrt(np.linalg.det(2 * np.pi * table))

    def density(*u):
        u = np.asarray(u)
        value = dict(zip(fields, u, strict=True))
        return value[c] * value[d] * np.exp(-u @ inverse @ u / 2) / norm

    expected, _ = scipy.integrate.nquad(density, [(0, 12)] * len(fields), opts={"epsabs": 1e-9, "epsrel": 1e-9})
    found = ReLU().diffusion(COVARIANCE, *(jnp.asarray(i) for i in index))
    assert float(found) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    "activation", [pytest.param(Erf(), marks=pytest.mark.slow), pytest.param(ReLU(), marks=pytest.mark.slow), Linear()]
)
def test_sum_of_diffusions(activation):
    # Pair after pair against all at once, where one formula serves all pairs.
    s = jnp.asarray([0.5, -1.0, 0.7, 0.2])
    each = activation.diffusion(COVARIANCE, *np.indices((2, 2, 4, 4)))
    expected = jnp.einsum("abcd,c,d->ab", each, s, s)
    np.testing.assert_allclose(activation.diffusion_of_sum(COVARIANCE, s, 2), expected, rtol=1e-13)


@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-8, 0.0])
def test_rectifiers_that_nearly_coincide(gap):
    # Two fields at distance `gap`: the step and the rectifiers are those of one field, up to a change that is small.
    draw = np.random.default_rng(0).normal(size=(3, 6))
    fields = np.stack([draw[0], draw[1], draw[0] + gap * draw[2]])
    covariance = jnp.asarray(fields @ fields.T)
    activation = ReLU()
    near, far = activation.pair(covariance, 0, 2), activation.pair(covariance, 0, 0)
    expected = float(covariance[0, 2]) / 2
    assert float(near) == pytest.approx(expected, rel=10 * gap**3 + 1e-14)
    assert float(far) == pytest.approx(float(covariance[0, 0]) / 2, rel=1e-15)
    # A step where the other field is rectified.
    both = activation.diffusion(covariance, 0, 1, np.asarray([2, 0]), 1)
    change = activation.pair(covariance, 1, 2) - activation.pair(covariance, 1, 0)
    assert float(both[0] - both[1]) == pytest.approx(float(change), abs=gap**2 + 1e-13)


@pytest.mark.parametrize(
    "activation", [pytest.param(Erf(), marks=pytest.mark.slow), pytest.param(ReLU(), marks=pytest.mark.slow), Linear()]
)
def test_fields_that_coincide_or_vanish(activation):
    # Student equals teacher, and a unit of zero weights: finite values and gradients.
    ones = jnp.zeros((4, 4)).at[:3, :3].set(1.0)

    def total(covariance):
        n = np.arange(4)
        pairs = activation.pair(covariance, n[:, None], n[None, :])
        return jnp.sum(pairs) + jnp.sum(activation.diffusion(covariance, n, n[::-1], n, n[::-1]))

    value, gradient = jax.value_and_grad(total)(ones)
    assert jnp.isfinite(value) and jnp.all(jnp.isfinite(gradient))
    single = jax.jit(total)(ones.astype(jnp.float32))
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("activation", [ReLU(), Custom(jnp.tanh)])
def test_refused_indices(activation):
    with pytest.raises(ValueError, match="Indices of fields must be known when JAX traces"):
        jax.eval_shape(lambda a: activation.diffusion(COVARIANCE, a, 1, 2, 3), 0)
    for wrong in (4, -5, 1.0):
        with pytest.raises(ValueError, match="whole numbers below 4, their number"):
            activation.diffusion(COVARIANCE, 0, 1, 2, wrong)
    # Counted from the end, it is the same field.
    assert activation.diffusion(COVARIANCE, 3, -1, 2, 2) == activation.diffusion(COVARIANCE, 3, 3, 2, 2)


def test_refused_functions():
    with pytest.raises(ValueError, match="`nodes` must be a whole number of at least 2; got 1"):
        Custom(jnp.tanh, 1)
    with pytest.raises(ValueError, match="`function` must map arrays by JAX"):
        Custom(np.tanh)
    with pytest.raises(ValueError, match="`function` must keep shapes"):
        Custom(jnp.sum)
