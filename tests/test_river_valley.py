"""River valleys and token logits: reference values, optimality of the decay, Monte Carlo, extremes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tractax as tx
from tractax.rules import (
    CertainToken,
    RiverDescent,
    RiverPoint,
    RiverValley,
    ScheduledDescent,
    TokenLogit,
    TokenTask,
    optimal_decay,
    stationary_spread,
    warmup_stable_decay,
)

TASK = RiverValley(2.0, 0.3, 0.5**0.5)
RATE = 0.4


def solve(rates, x=0.0, task=TASK, **options):
    rule = ScheduledDescent(rates, **{"batch_size": 1, **options})
    return RiverDescent.from_model(RiverPoint(x, 0.0), task, rule)


def test_reference_decay():
    rest = stationary_spread(TASK, RATE)
    assert float(rest) == pytest.approx(1 / 12, rel=1e-14)
    solution = solve(optimal_decay(RATE, 2.0, 10), x=jnp.sqrt(rest))
    assert float(solution.evaluate(10.0).spread) == pytest.approx(0.010869565217391304, rel=1e-13)
    inverse = 12 + np.arange(11) * 2.0**2 / 0.5
    np.testing.assert_allclose(1 / solution.path.spread, inverse, rtol=1e-13)


@pytest.mark.slow
def test_the_decay_is_optimal():
    start = jnp.sqrt(stationary_spread(TASK, RATE))
    best = optimal_decay(RATE, 2.0, 12)

    def last(rates):
        return solve(rates, x=start).path.spread[-1]

    np.testing.assert_allclose(jax.jit(jax.grad(last))(best), np.zeros(12), atol=1e-15)
    assert float(jnp.linalg.eigvalsh(jax.jit(jax.hessian(last))(best))[0]) > 0
    others = best[None, :] * jnp.exp(jax.random.normal(jax.random.key(0), (50, 12)) / 2)
    others = jnp.minimum(others, 0.99)
    assert float(jnp.min(jax.jit(jax.vmap(last))(others))) > float(last(best))


def test_later_steps_go_on_at_the_last_rate():
    rates = jnp.asarray([0.1, 0.7, 0.2])
    short, long = solve(rates, x=0.6), solve(jnp.concatenate([rates, jnp.full(37, 0.2)]), x=0.6)
    for t in (0.0, 2.0, 3.0, 4.0, 11.0, 40.0):
        found, expected = short.evaluate(t), long.evaluate(t)
        np.testing.assert_allclose([found.spread, found.river], [expected.spread, expected.river], rtol=1e-13, atol=1e-16)
    end = short.limit()
    assert float(end.spread) == pytest.approx(float(stationary_spread(TASK, 0.2)), rel=1e-14) and jnp.isinf(end.river)
    # A rate of zero stops, one of 1/h forgets, and without noise the valley empties.
    assert float(solve(jnp.asarray([0.1, 0.0]), x=0.6).limit().river) == pytest.approx(0.03)
    assert float(solve(jnp.asarray([0.5])).evaluate(1e9).spread) == pytest.approx(0.125, rel=1e-14)
    quiet = solve(rates, x=0.6, batch_size=None).limit()
    assert float(quiet.spread) == 0
    level = solve(rates, task=RiverValley(2.0, 0.0, 1.0)).limit()
    assert float(level.river) == 0


def test_training_against_theory():
    rates = warmup_stable_decay(RATE, 2.0, 3, 4, 5)
    assert rates.shape == (12,)
    np.testing.assert_allclose(rates[:4], [RATE / 3, 2 * RATE / 3, RATE, RATE], rtol=1e-15)
    solution, runs = solve(rates, x=0.5, batch_size=2), 20_000
    rule, ts = ScheduledDescent(rates, batch_size=2), jnp.asarray([5.0, 12.0])

    def member(key):
        run = tx.train(RiverPoint(0.5, 0.0), TASK, rule, ts, observe=(solution.reduce, TASK.loss), key=key)
        return run.observed

    states, losses = jax.jit(jax.vmap(member))(jax.random.split(jax.random.key(1), runs))
    for i, t in enumerate(ts):
        theory = solution.evaluate(t)
        error = jnp.std(states.spread[:, i]) / runs**0.5
        assert abs(float((jnp.mean(states.spread[:, i]) - theory.spread) / error)) < 4
        np.testing.assert_allclose(states.river[:, i], theory.river, rtol=1e-12)
        error = jnp.std(losses[:, i]) / runs**0.5
        assert abs(float((jnp.mean(losses[:, i]) - solution.loss(theory)) / error)) < 4


def test_scheduled_descent_is_optax_with_a_schedule():
    rates = jnp.asarray([0.3, 0.1, 0.2])
    start, ts = RiverPoint(0.5, 0.0), jnp.asarray([1.0, 3.0, 5.0])
    schedule = optax.sgd(lambda count: rates[jnp.minimum(count, 2)])
    reference = tx.train(start, TASK, tx.GradientDescent(1.0, schedule), ts, observe=lambda model: model.x)
    found = tx.train(start, TASK, ScheduledDescent(rates), ts, observe=lambda model: model.x)
    np.testing.assert_allclose(found.observed, reference.observed, rtol=1e-14)


def test_reference_logit():
    solution = CertainToken.from_model(TokenLogit(0.0), TokenTask(1.0))
    assert float(solution.evaluate(1.0).value) == pytest.approx(0.4428544010023887, rel=1e-14)
    assert float(solution.evaluate(100.0).value) == pytest.approx(4.568829494840827, rel=1e-14)
    # z + e^z = t + z_0 + e^{z_0}, from any start and at any time.
    for z in (-700.0, -5.0, 0.3, 40.0, 700.0, 800.0):
        solution = CertainToken.from_model(TokenLogit(z), TokenTask(1.0), tx.GradientFlow(2.0))
        assert float(solution.evaluate(0.0).value) == pytest.approx(z, rel=1e-14)
        for t in (3.0, 1e4, 1e30):
            reached = float(solution.evaluate(t).value)
            assert np.isfinite(reached) and reached >= z
            if z < 600:
                gained = np.exp(np.float64(reached)) - np.exp(np.float64(z)) + reached - z
                assert gained == pytest.approx(t / 2, rel=1e-11, abs=1e-13 * np.exp(z))
    assert jnp.isinf(CertainToken.from_model(TokenLogit(0.0), TokenTask(1.0)).limit().value)


def test_uncertain_tokens_keep_their_curvature():
    task = TokenTask(0.7)
    z = jnp.asarray(np.log(0.7 / 0.3))
    assert float(jax.grad(lambda z: task.loss(TokenLogit(z)))(z)) == pytest.approx(0, abs=1e-15)
    assert float(jax.hessian(lambda z: task.loss(TokenLogit(z)))(z)) == pytest.approx(0.21, rel=1e-13)
    assert float(task.curvature(TokenLogit(z))) == pytest.approx(0.21, rel=1e-13)


def test_float32_and_vmap():
    single = CertainToken.from_model(TokenLogit(jnp.float32(90.0)), TokenTask(1.0)).evaluate(jnp.float32(2.0)).value
    assert single.dtype == jnp.float32 and float(single) == 90.0
    rates = jnp.asarray([[0.1, 0.2], [0.3, 0.4]])
    together = jax.jit(jax.vmap(lambda r: solve(r).evaluate(5.0).spread))(rates)
    np.testing.assert_allclose(together, [solve(r).evaluate(5.0).spread for r in rates], rtol=1e-13)
    task = jax.tree.map(lambda x: x.astype(jnp.float32), TASK)
    rule = ScheduledDescent(rates[0].astype(jnp.float32), batch_size=1)
    state = RiverDescent.from_model(RiverPoint(jnp.float32(0), jnp.float32(0)), task, rule).evaluate(5.0)
    assert state.spread.dtype == jnp.float32 and float(state.spread) == pytest.approx(float(together[0]), rel=1e-5)


def test_refusals():
    point = RiverPoint(0.0, 0.0)
    for call, message in (
        (lambda: RiverValley(0.0, 1.0, 1.0), "`curvature` must be positive"),
        (lambda: RiverValley(1.0, 1.0, -1.0), "`noise` must be non-negative"),
        (lambda: RiverPoint(jnp.ones(2), 0.0), "`x` must be one number"),
        (lambda: ScheduledDescent(jnp.asarray([0.1, -0.1])), "`rates` must be non-negative"),
        (lambda: ScheduledDescent(0.1), "`rates` must have shape"),
        (lambda: ScheduledDescent(jnp.ones(2), batch_size=0), "`batch_size` must be a whole number"),
        (lambda: RiverDescent.from_model(point, TASK, tx.GradientDescent(0.1)), "`rule` must be a ScheduledDescent"),
        (lambda: solve(jnp.asarray([1.0])), "stable rates"),
        (lambda: stationary_spread(TASK, 1.0), "`rate` must be below 2 / curvature"),
        (lambda: optimal_decay(0.1, 1.0, 0), "`steps` must be a whole number"),
        (lambda: warmup_stable_decay(0.1, 1.0, -1, 2, 3), "`warmup` must be a whole number of at least 0"),
        (lambda: TokenTask(1.1), "`probability` must not exceed 1"),
        (lambda: CertainToken.from_model(TokenLogit(0.0), TokenTask(0.9)), "a certain token"),
        (lambda: CertainToken.from_model(TokenLogit(jnp.ones(2)), TokenTask(1.0)), "`model` must have one logit"),
        (lambda: CertainToken.from_model(point, TokenTask(1.0)), "`model` must be a TokenLogit"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
