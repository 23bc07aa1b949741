"""Curl descent: reference values, regimes, invariants, stability of solutions, thresholds, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import tractax as tx
from tractax.deep_linear import DeepLinear
from tractax.rules import CurlDescent
from tractax.special import monotone_inverse
from tractax.systems.teacher_student._curl_chaos import CurlChaosSystem
from tractax.systems.teacher_student._curl_descent import eigenvalue_error
from tractax.systems.teacher_student._curl_speed_up import CurlSpeedUpSystem
from tractax.teacher_student import (
    CurlDescentScalar,
    TwoLayerLinear,
    VectorTask,
    curl_invariants,
    curl_stability_matrix,
    flipped_edge,
    hidden_flip_threshold,
    readout_flip_threshold,
)


def scalar(hidden, readout, target, direction=1.0):
    """The solution for two weights; direction is the sign of the readout's rule."""
    hidden, readout, target = (jnp.asarray(x) for x in (hidden, readout, target))
    model, task = TwoLayerLinear(hidden[None, None], readout[None]), VectorTask(target[None])
    return CurlDescentScalar.from_model(model, task, CurlDescent((-direction, direction)))


@jax.jit
def weights(case, ts):
    """Both weights at several times, shape (2, times)."""
    states = jax.vmap(scalar(*case).evaluate)(jnp.asarray(ts))
    return jnp.stack([states.hidden, states.readout])


def test_reference_weights():
    found = weights((1.2, 0.7, 0.6, 1.0), [1.3, 4.0, 0.0, 0.0, 0.0])
    expected = [[1.2967275071, 1.3115406797, 1.2], [0.4984955088, 0.4581059326, 0.7]]
    np.testing.assert_allclose(found[:, :3], expected, atol=6e-11)


@pytest.mark.parametrize(
    "case",
    [
        (1.0, 0.5, 2.0, 1.0),
        (-0.3, 0.9, -1.5, -1.0),
        (0.0, 1.0, 0.3, 1.0),
        (-1.0, 1e-3, 0.1, -1.0),
        (0.6, 0.8, 0.5, 1.0),
        (0.6, 0.8, -0.5, -1.0),
        (0.3, -0.4, 0.0, 1.0),
        (0.7, 0.714, 0.5, 1.0),
    ],
)
def test_against_scipy(case):
    *start, target, direction = case

    def field(_, w):
        error = target - w[0] * w[1]
        return [-direction * w[1] * error, direction * w[0] * error]

    ts = np.asarray([0.0, 0.4, 3.0, 11.0, 40.0])
    run = scipy.integrate.solve_ivp(field, (0, 40), start, "DOP853", ts, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(weights(case, ts), run.y, atol=3e-9)


def test_late_times_and_limits():
    huge = [1e3, 1e6, 1e9, 1e300, jnp.inf]
    locked = weights((1.2, 0.7, 0.6, 1.0), huge)
    np.testing.assert_allclose(locked[0] * locked[1], 0.6, rtol=1e-14)
    np.testing.assert_allclose(locked[0] ** 2 + locked[1] ** 2, 1.2**2 + 0.7**2, rtol=1e-14)
    critical = weights((0.6, 0.8, 0.5, 1.0), huge)
    np.testing.assert_allclose(critical[:, 2:], -np.full((2, 3), 0.5**0.5), rtol=1e-8)
    np.testing.assert_allclose(weights((0.3, 0.4, 0.0, 1.0), huge)[:, -1], [0.5, 0.0], atol=1e-15)
    np.testing.assert_array_equal(weights((0.0, 0.0, 0.7, 1.0), huge), np.zeros((2, 5)))
    assert float(scalar(1.2, 0.7, 0.6).limit().product) == pytest.approx(0.6, rel=1e-14)
    with pytest.raises(ValueError, match="no limit: the weights rotate for ever"):
        scalar(1.0, 0.5, 2.0).limit()


@pytest.mark.slow
def test_an_unstable_solution_is_not_left_by_rounding_but_is_by_a_nudge():
    # At D2 = 1 the solution with the larger readout is unstable; what leaves it ends with the weights exchanged.
    ts = [0.0, 1.0, 1e3, 1e9, jnp.inf]
    np.testing.assert_allclose(weights((0.4, 1.3, 0.4 * 1.3, 1.0), ts)[1], 1.3, rtol=1e-14)
    np.testing.assert_allclose(weights((0.4 + 1e-6, 1.3, 0.4 * 1.3, 1.0), ts)[1, -1], 0.4, rtol=1e-6)
    h = 1e-7
    slope = jax.jit(jax.jacfwd(lambda target: weights((0.4, 1.3, target, 1.0), jnp.full(5, 3.0))[1, 0]))(0.52)
    low, high = (float(weights((0.4, 1.3, 0.52 + x, 1.0), jnp.full(5, 3.0))[1, 0]) for x in (-h, h))
    assert float(slope) == pytest.approx((high - low) / (2 * h), rel=1e-5)


def test_period_and_rate():
    turning, locking = scalar(0.8, -0.6, 0.8), scalar(0.8, -0.6, 0.3)
    period = float(turning.period)
    assert period == pytest.approx(4 * np.pi / np.sqrt(4 * 0.8**2 - 1), rel=1e-14)
    found = weights((0.8, -0.6, 0.8, 1.0), period * jnp.asarray([0.0, 0.5, 1.0, 100.0, 1000.5]))
    np.testing.assert_allclose(found[0], 0.8 * np.asarray([1, -1, 1, 1, -1]), rtol=1e-11)
    assert np.isnan(float(turning.rate)) and np.isinf(float(locking.period))
    late = weights((0.8, -0.6, 0.3, 1.0), [0.0, 1.0, 2.0, 20.0, 21.0])
    gaps = late[0] * late[1] - 0.3
    assert np.log(gaps[3] / gaps[4]) == pytest.approx(float(locking.rate), rel=1e-6)
    assert float(locking.rate) == pytest.approx(0.8, rel=1e-14)
    assert float(locking.initial.phase) == pytest.approx(2 * np.arctan2(-0.6, 0.8), rel=1e-14)


@pytest.mark.slow
def test_eigenvalues_at_a_solution():
    assert float(eigenvalue_error()) < 1e-13


@pytest.mark.slow
def test_invariants_do_not_move():
    model, task = TwoLayerLinear([[2.0, 0.3], [-0.2, 0.9], [0.5, 0.5]], [0.9, -0.4, 0.3]), VectorTask([0.7, -1.2])
    rule = CurlDescent(([1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]))
    velocity = rule.vector_field(0.0, model, tx.Objective(task, eqx.filter(model, eqx.is_array, inverse=True)))
    moved = jax.jvp(lambda model: curl_invariants(model, rule), (model,), (velocity,))[1]
    np.testing.assert_allclose(moved, 0.0, atol=1e-14)
    np.testing.assert_allclose(curl_invariants(model, rule), [4.09 + 0.81, 0.85 - 0.16, 0.5 - 0.09], rtol=1e-14)


@pytest.mark.slow
def test_stability_of_solutions_is_what_training_sees():
    model = TwoLayerLinear(jnp.asarray([[2.0, 0.3], [-0.2, 0.9], [0.5, 0.5]]), jnp.asarray([0.9, -0.4, 0.3]))
    task = VectorTask(model.vector + 1e-4 * jnp.asarray([0.6, -0.8]))
    for second, stable in (([1.0, 1.0, -1.0], True), ([-1.0, 1.0, -1.0], False)):
        rule = CurlDescent((1.0, jnp.asarray(second)))
        assert bool(jnp.linalg.eigvalsh(curl_stability_matrix(model, rule))[0] > 0) is stable
        losses = tx.train(model, task, rule, [0.0, 4.0]).observed
        assert bool(losses[1] < losses[0]) is stable


def test_plain_signs_are_gradient_flow():
    model, task = TwoLayerLinear(0.3 * jnp.eye(3, 2) + 0.1, jnp.asarray([0.2, -0.1, 0.4])), VectorTask([1.0, -0.5])
    objective = tx.Objective(task, eqx.filter(model, eqx.is_array, inverse=True))
    expected = tx.GradientFlow(2.0).vector_field(0.0, model, objective)
    for signs in ((1.0, 1.0), (jnp.ones((3, 2)), jnp.ones(3))):
        found = CurlDescent(signs, 2.0).vector_field(0.0, model, objective)
        assert bool(eqx.tree_equal(found, expected))


def test_loss_is_that_of_samples():
    model, task = TwoLayerLinear([[0.3, -0.2, 0.5]], [0.7]), VectorTask([1.0, 0.2, -0.4])
    inputs = task.sample(jax.random.key(0), 100_000)
    assert float(task.batch_loss(model, inputs)) == pytest.approx(float(task.loss(model)), rel=0.02)
    np.testing.assert_allclose(task.error(model), task.target - model.vector, rtol=1e-14)


edge = jax.jit(jnp.vectorize(flipped_edge))
threshold = jax.jit(jax.vmap(lambda c, g, rho: readout_flip_threshold(c, hidden_variance=g, readout_norm=rho)))


def test_reference_edges_and_thresholds():
    edges = edge(jnp.asarray([2.0, 0.5, 1.0]), jnp.asarray([0.1, 0.2, 0.5]))
    np.testing.assert_allclose(edges, [-1.018813044069, -1.504698395576, -2.598076211353], atol=6e-13)
    expected = [0.0061721342, 0.0293361956, 0.0550592126, 0.0973203467, 0.15625]
    ratios = jnp.asarray([0.1, 0.5, 1.0, 2.0, 4.0])
    np.testing.assert_allclose(threshold(ratios, jnp.ones(5), jnp.ones(5)), expected, atol=6e-11)
    np.testing.assert_allclose(jax.vmap(hidden_flip_threshold)(ratios), [0.5, 0.5, 0.5, 0.5857864376, 1.0], atol=1e-10)


def test_edge_is_that_of_the_stieltjes_transform():
    cases = np.asarray([(0.3, 0.7), (1.0, 0.05), (2.5, 1.0), (6.0, 0.02), (9.0, 0.4)])
    found = edge(*jnp.asarray(cases).T)
    for (c, fraction), value in zip(cases, found, strict=True):
        # z(g) = 1/g + c(1-α)/(1-g) - cα/(1+g): its stationary value nearest to g = 0 in (-1, 0).
        roots = np.roots([c - 1, 2 * c * (1 - 2 * fraction), c + 2, 0, -1])
        g = max(root.real for root in roots if abs(root.imag) < 1e-9 and -1 < root.real < 0)
        expected = 1 / g + c * (1 - fraction) / (1 - g) - c * fraction / (1 + g)
        assert float(value) == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_the_ends():
    found = edge(jnp.asarray([9.0, 9.0, 0.5, 0.5, 2.0]), jnp.asarray([0.0, 1e-12, 0.0, 1e-12, 1.0]))
    np.testing.assert_allclose(found, [4.0, 4.0, 0.0, -0.75, -((1 + 2**0.5) ** 2)], rtol=1e-5)
    # A single unit is too much where ρ/g² < 1 - c/2, and none is where ρ/g² > (1 + √c)².
    fractions = threshold(jnp.full(5, 0.5), jnp.ones(5), jnp.asarray([0.7, 0.749, 0.751, 2.9, 3.0]))
    assert np.all(fractions[:2] == 0) and fractions[2] > 0 and fractions[3] < 0.995
    assert float(fractions[4]) == pytest.approx(1.0, abs=1e-14) and fractions[4] <= 1
    assert float(hidden_flip_threshold(1.2, hidden_variance=0.5, readout_norm=2.0)) > 0.5
    single = flipped_edge(jnp.float32(2.0), jnp.float32(0.1))
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(-1.018813, abs=2e-6)


def test_thresholds_are_where_the_edge_is_and_have_its_derivative():
    c, g_square, rho = jnp.asarray([0.7, 3.0]), jnp.asarray([0.5, 2.0]), jnp.asarray([1.3, 1.0])
    np.testing.assert_allclose(rho + g_square * edge(c, threshold(c, g_square, rho)), 0.0, atol=1e-12)
    slopes = jax.jit(jax.grad(flipped_edge, argnums=(0, 1)))(2.0, 0.3)
    h = 1e-5
    up, down = (
        edge(jnp.asarray([2 + h, 2.0]), jnp.asarray([0.3, 0.3 + h])),
        edge(jnp.asarray([2 - h, 2.0]), jnp.asarray([0.3, 0.3 - h])),
    )
    np.testing.assert_allclose(slopes, (up - down) / (2 * h), rtol=1e-7)


@pytest.mark.slow
def test_monotone_inverse():
    def root(y):
        return monotone_inverse(lambda x: x**3, y, -1.0, 4.0)

    np.testing.assert_allclose(jax.vmap(root)(jnp.asarray([-9.0, 0.027, 8.0, 99.0])), [-1, 0.3, 2, 4], rtol=1e-14)
    assert float(jax.grad(root)(8.0)) == pytest.approx(1 / 12, rel=1e-12)
    assert float(jax.grad(jax.grad(root))(8.0)) == pytest.approx(-2 / 9 / 2**5, rel=1e-10)
    assert float(jax.jvp(root, (99.0,), (1.0,))[1]) == 0
    assert float(jax.grad(lambda a: monotone_inverse(lambda x: a * x, 6.0, 0.0, 9.0))(2.0)) == pytest.approx(-1.5)
    with pytest.raises(ValueError, match="`value` must be real"):
        monotone_inverse(lambda x: x, 1j, 0.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["curl_descent", "curl_threshold", "curl_chaos", "curl_speed_up"])
def test_catalogue(name):
    assert tx.verify(name).passed


@pytest.mark.slow
def test_neighbours_part_where_the_readout_climbs():
    # SciPy and two separate runs against the tangent vector of the Lyapunov exponent.
    system = CurlChaosSystem()
    model, task = system.case()
    (first, second), target = (np.asarray(w) for w in model.weights), np.asarray(task.optimum)

    def field(_, y):
        hidden, readout = y[:16].reshape(4, 4), y[16:].reshape(3, 4)
        error = target - readout @ hidden
        return np.concatenate([(readout.T @ error).ravel(), -(error @ hidden.T).ravel()])

    start = np.concatenate([first.ravel(), second.ravel()])
    nudge = 1e-8 * np.random.default_rng(0).normal(size=28)
    options = {"method": "DOP853", "t_eval": [100.0, 250.0], "rtol": 1e-12, "atol": 1e-14}
    one, other = (scipy.integrate.solve_ivp(field, (0.0, 250.0), y, **options).y for y in (start, start + nudge))
    apart = np.log(np.linalg.norm(other - one, axis=0))
    early, late = jax.vmap(system.growth)(jnp.asarray([100.0, 250.0]))
    assert apart[1] - apart[0] == pytest.approx(float(late - early), abs=2.0)
    assert float(late - early) > 5.0


@pytest.mark.slow
def test_a_flipped_half_of_the_hidden_layer_leaves_the_plateau_sooner():
    system, ts = CurlSpeedUpSystem(), jnp.asarray([0.0, 100.0, 350.0])
    losses = jax.vmap(system.losses, in_axes=(None, 0, None))(ts, jnp.asarray([0, 2, 3]), 0)
    # All three on the plateau; then gradient flow and three flipped units are still there.
    np.testing.assert_allclose(losses[:, 1], losses[0, 1], rtol=0.05)
    assert losses[0, 2] > 0.8 * losses[0, 1] and losses[2, 2] > 0.8 * losses[2, 1]
    assert losses[1, 2] < 0.01


def test_refusals():
    model, task, rule = TwoLayerLinear([[1.2]], [0.7]), VectorTask([0.6]), CurlDescent((-1.0, 1.0))
    wide = TwoLayerLinear(jnp.ones((2, 1)), jnp.ones(2))
    with pytest.raises(ValueError, match=r"one layer flipped, D1 = -D2: FAILS"):
        CurlDescentScalar.from_model(model, task, CurlDescent((1.0, 1.0)))
    with pytest.raises(ValueError, match="`rule` must be CurlDescent"):
        CurlDescentScalar.from_model(model, task, tx.GradientFlow())
    with pytest.raises(ValueError, match="one hidden unit and one input"):
        CurlDescentScalar.from_model(wide, task, rule)
    with pytest.raises(ValueError, match="one hidden unit and one input"):
        CurlDescentScalar.from_model(model, task, rule).reduce(wide)
    with pytest.raises(ValueError, match="`model` must be a TwoLayerLinear; got DeepLinear"):
        CurlDescentScalar.from_model(DeepLinear((jnp.ones((1, 1)),)), task, rule)
    with pytest.raises(ValueError, match="`model` must have 2 inputs"):
        CurlDescentScalar.from_model(model, VectorTask([1.0, 2.0]), rule)
    with pytest.raises(ValueError, match="`signs` must be 1 or -1"):
        CurlDescent((1.0, jnp.asarray([1.0, 0.5])))
    with pytest.raises(ValueError, match="`signs` must be a tuple"):
        CurlDescent(1.0)
    with pytest.raises(ValueError, match="`signs` must hold one array for each trainable array"):
        tx.train(wide, task, CurlDescent((jnp.ones(3), 1.0)), [1.0])
    with pytest.raises(ValueError, match="`signs` must hold one array"):
        tx.train(wide, task, CurlDescent((1.0,)), [1.0])
    with pytest.raises(ValueError, match="`rule` must have one sign for each hidden unit"):
        curl_invariants(wide, CurlDescent((jnp.ones((2, 1)), 1.0)))
    with pytest.raises(ValueError, match="`time_constant` must be positive"):
        CurlDescent((1.0, 1.0), 0.0)
    with pytest.raises(ValueError, match="`readout` must have shape"):
        TwoLayerLinear(jnp.ones((2, 3)), jnp.ones(3))
    with pytest.raises(ValueError, match="`target` must be finite"):
        VectorTask([1.0, jnp.nan])
    with pytest.raises(ValueError, match="`fraction` must lie between 0 and 1"):
        flipped_edge(1.0, 1.2)
    with pytest.raises(ValueError, match="`ratio` must be positive"):
        readout_flip_threshold(-1.0)
    with pytest.raises(ValueError, match="`readout_norm` must be positive"):
        hidden_flip_threshold(1.0, readout_norm=0.0)
