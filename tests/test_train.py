"""`train` against diffrax, SciPy, NumPy and optax by hand; what it records; derivatives, batches, compilation."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp
from toys import DESCENT, FLOW, MODEL, TASK, both_rules, regression

import tractax as tx
from tractax.deep_linear import DeepLinear, gaussian
from tractax.rules import InertialFlow


def product(model):
    return model.product


# Against other people's integrators and loops.


def test_flow_is_diffrax_by_hand():
    ts = jnp.asarray([0.0, 0.7, 2.0])
    trajectory = tx.train(MODEL, TASK, FLOW, ts, observe=product)
    by_hand = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: jax.tree.map(jnp.negative, jax.grad(TASK.loss)(y))),
        diffrax.Tsit5(),
        t0=0.0,
        t1=2.0,
        dt0=None,
        y0=MODEL,
        saveat=diffrax.SaveAt(ts=ts, fn=lambda t, y, args: y.product),
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-12),
    )
    np.testing.assert_allclose(trajectory.observed, by_hand.ys, rtol=1e-12)
    assert int(trajectory.stats["num_steps"]) == int(by_hand.stats["num_steps"])


def test_flow_against_scipy():
    target = np.asarray(TASK.optimum)

    def field(_, y):
        w1, w2 = y[:6].reshape(3, 2), y[6:].reshape(2, 3)
        error = target - w2 @ w1
        return np.concatenate([(w2.T @ error).ravel(), (error @ w1.T).ravel()])

    start = np.concatenate([np.asarray(w).ravel() for w in MODEL.weights])
    expected = solve_ivp(field, (0, 3), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    final = tx.train(MODEL, TASK, FLOW, [3.0]).model
    np.testing.assert_allclose(np.concatenate([w.ravel() for w in final.weights]), expected, rtol=1e-7, atol=1e-8)


def test_descent_against_numpy():
    w1, w2 = (np.array(w) for w in MODEL.weights)
    losses = []
    for step in range(41):
        error = np.asarray(TASK.optimum) - w2 @ w1
        if step % 10 == 0:
            losses.append(np.sum(error**2) / 2)
        w1, w2 = w1 + 0.05 * w2.T @ error, w2 + 0.05 * error @ w1.T
    trajectory = tx.train(MODEL, TASK, DESCENT, 0.5 * np.arange(5))
    np.testing.assert_allclose(trajectory.observed, losses, rtol=1e-12)
    assert int(trajectory.stats["num_steps"]) == 40


def test_adam_against_an_optax_loop():
    optimiser = optax.adam(0.03)
    weights, state = MODEL, optimiser.init(MODEL)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(25):
            updates, state = optimiser.update(jax.grad(TASK.loss)(weights), state, weights)
            weights = optax.apply_updates(weights, updates)
    for rule in (tx.GradientDescent(0.03, optax.adam), tx.GradientDescent(1.0, optimiser, time_per_step=0.03)):
        final = tx.train(MODEL, TASK, rule, [0.75]).model
        np.testing.assert_allclose(final.product, weights.product, rtol=1e-10)


def test_line_search_gets_what_it_asks_for():
    trajectory = tx.train(MODEL, TASK, tx.GradientDescent(1.0, lambda rate: optax.lbfgs()), [0.0, 15.0])
    assert float(trajectory.observed[-1]) < 1e-10 * float(trajectory.observed[0])


@pytest.mark.slow
def test_small_steps_converge_to_the_flow():
    flow = tx.train(MODEL, TASK, FLOW, [1.0], observe=product)

    def error(rate):
        return tx.compare(flow, tx.train(MODEL, TASK, tx.GradientDescent(rate), [1.0], observe=product)).worst

    # First order: error ∝ η (1 + c η).
    assert tx.scaling(error, [0.02, 0.01, 0.005, 0.0025], correction=1.0).contains(1.0)


def test_any_network_trains(getkey):
    mlp = eqx.nn.MLP(2, 2, 4, 1, activation=jnp.tanh, key=getkey())
    for rule in (FLOW, DESCENT):
        trajectory = tx.train(mlp, regression(), rule, [0.0, 4.0])
        assert float(trajectory.observed[1]) < 0.5 * float(trajectory.observed[0])
        assert trajectory.model.activation(0.3) == jnp.tanh(0.3)


# What is recorded.


@both_rules
def test_records_only_at_the_requested_times(rule):
    calls = []

    def observe(model):
        jax.debug.callback(lambda: calls.append(1))
        return model.product

    trajectory = tx.train(MODEL, TASK, rule, [0.0, 0.1, 0.2, 3.0], observe=observe)
    jax.effects_barrier()
    assert len(calls) == 4
    assert trajectory.observed.shape == (4, 2, 2)
    np.testing.assert_array_equal(trajectory.observed[0], MODEL.product)
    np.testing.assert_allclose(trajectory.observed[-1], trajectory.model.product, rtol=1e-12)


@pytest.mark.slow
@both_rules
def test_times_may_be_log_spaced(rule):
    ts = jnp.logspace(-2, 1, 7)
    some = tx.train(MODEL, TASK, rule, ts)
    more = tx.train(MODEL, TASK, rule, jnp.sort(jnp.concatenate([jnp.asarray([0.0, 0.4, 7.0]), ts])))
    np.testing.assert_allclose(some.observed, more.observed[jnp.asarray([1, 2, 3, 4, 6, 7, 9])], rtol=1e-6)
    if rule is DESCENT:
        # Times between two steps are moved to the nearest one: 0.01, 0.0316 to 0 and 0.05.
        np.testing.assert_allclose(some.ts[:4], [0.0, 0.05, 0.1, 0.3], atol=1e-12)


@both_rules
def test_time_zero_alone(rule):
    trajectory = tx.train(MODEL, TASK, rule, [0.0])
    np.testing.assert_allclose(trajectory.observed, [TASK.loss(MODEL)], rtol=1e-15)
    np.testing.assert_array_equal(trajectory.model.product, MODEL.product)


class Labelled(eqx.Module):
    value: jax.Array
    name: str = eqx.field(static=True)


@both_rules
def test_observables_return_what_they_like(rule):
    observe = {
        "number": lambda model: 1.5,
        "count": lambda model: model.depth,
        "flag": lambda model: True,
        "text": lambda model: "constant",
        "nothing": lambda model: None,
        "numpy": lambda model: np.ones(3),
        "module": lambda model: Labelled(model.product, "W"),
        "model": lambda model: model,
    }
    observed = tx.train(MODEL, TASK, rule, [0.0, 0.5], observe=observe).observed
    np.testing.assert_array_equal(observed["number"], [1.5, 1.5])
    np.testing.assert_array_equal(observed["count"], [2.0, 2.0])
    np.testing.assert_array_equal(observed["flag"], [1.0, 1.0])
    assert observed["text"] == "constant" and observed["nothing"] is None
    assert observed["numpy"].shape == (2, 3)
    assert observed["module"].name == "W" and observed["module"].value.shape == (2, 2, 2)
    assert observed["model"].weights[0].shape == (2, 3, 2)


@both_rules
def test_float32(rule):
    model, task = jax.tree.map(lambda x: x.astype(jnp.float32), (MODEL, TASK))
    trajectory = tx.train(model, task, rule, [0.0, 1.0, 2.0])
    assert trajectory.ts.dtype == trajectory.observed.dtype == trajectory.model.weights[0].dtype == jnp.float32
    np.testing.assert_allclose(trajectory.observed, tx.train(MODEL, TASK, rule, [0.0, 1.0, 2.0]).observed, rtol=1e-3)


@pytest.mark.parametrize("rule", [FLOW, pytest.param(DESCENT, marks=pytest.mark.slow)])
def test_arrays_of_two_precisions_keep_them(rule):
    first, second = MODEL.weights
    model = DeepLinear((first.astype(jnp.float32), second))

    def run(time):
        return tx.train(model, TASK, rule, time[None])

    with jax.numpy_dtype_promotion("standard"):
        together = tx.ensemble(run, jnp.asarray([0.5, 2.0]), method="vmap")
    assert [w.dtype for w in together.model.weights] == [jnp.float32, jnp.float64]
    np.testing.assert_allclose(together.observed[1], tx.train(MODEL, TASK, rule, [2.0]).observed, rtol=1e-5)


def test_trajectory_is_a_path():
    ts = jnp.asarray([0.5, 1.0, 2.0])
    trajectory = tx.train(MODEL, TASK, FLOW, ts, observe={"loss": TASK.loss, "text": lambda model: "W"})
    losses = trajectory.observed["loss"]
    assert (float(trajectory.t0), float(trajectory.t1)) == (0.5, 2.0)
    np.testing.assert_array_equal([trajectory.evaluate(t)["loss"] for t in ts], losses)
    np.testing.assert_allclose(trajectory.evaluate(1.25)["loss"], 0.75 * losses[1] + 0.25 * losses[2], rtol=1e-14)
    np.testing.assert_allclose(trajectory.evaluate(0.5, 2.0)["loss"], losses[2] - losses[0], rtol=1e-14)
    assert trajectory.evaluate(0.7)["text"] == "W"
    for t in (0.4, 2.1, jnp.nan):
        with pytest.raises(ValueError, match="between the first and the last recorded time"):
            trajectory.evaluate(t)
    with pytest.raises(ValueError, match=r"one time, a scalar; got shape \(3,\)"):
        trajectory.evaluate(ts)


def test_trajectory_of_steps_that_share_a_time():
    # 0.01 and 0.02 are both closest to step 0.
    trajectory = tx.train(MODEL, TASK, DESCENT, [0.01, 0.02, 0.05])
    assert trajectory.ts.tolist() == [0.0, 0.0, 0.05]
    np.testing.assert_array_equal(trajectory.evaluate(0.0), TASK.loss(MODEL))
    single = tx.train(MODEL, TASK, DESCENT, [0.05])
    np.testing.assert_array_equal(single.evaluate(0.05), single.observed[0])


# Differentiation, batching, compilation.


@both_rules
def test_gradients(rule):
    def final(scale, adjoint=None):
        model = DeepLinear(tuple(scale * w for w in MODEL.weights))
        return tx.train(model, TASK, rule, [0.3, 1.0], adjoint=adjoint).observed[-1]

    one = jnp.asarray(1.0)
    finite = (final(one + 1e-4) - final(one - 1e-4)) / 2e-4
    reverse = jax.jit(jax.grad(final))(one)
    _, forward = jax.jvp(lambda scale: final(scale, diffrax.ForwardMode()), (one,), (one,))
    assert float(reverse) == pytest.approx(float(finite), rel=1e-6)
    assert float(forward) == pytest.approx(float(reverse), rel=1e-7)


def test_gradient_with_respect_to_the_learning_rate():
    def final(rate):
        # 20 steps whatever the rate.
        return tx.train(MODEL, TASK, tx.GradientDescent(rate, time_per_step=1.0), [20.0]).observed[-1]

    rate = jnp.asarray(0.05)
    finite = (final(rate + 1e-5) - final(rate - 1e-5)) / 2e-5
    assert float(jax.grad(final)(rate)) == pytest.approx(float(finite), rel=1e-6)


def test_gradient_through_a_meter():
    def final(scale):
        model = DeepLinear(tuple(scale * w for w in MODEL.weights))
        return tx.train(model, TASK, DESCENT, [0.5], progress_meter=diffrax.TextProgressMeter(0.5)).observed[-1]

    assert jnp.isfinite(jax.grad(final)(jnp.asarray(1.0)))


def test_vmap_over_learning_rates():
    def losses(rate):
        return tx.train(MODEL, TASK, tx.GradientDescent(rate), [0.0, 1.0]).observed

    rates = jnp.asarray([0.02, 0.05, 0.1])
    together = jax.jit(jax.vmap(losses))(rates)
    np.testing.assert_allclose(together, jnp.stack([losses(rate) for rate in rates]), rtol=1e-12)


@pytest.mark.slow
def test_vmap_over_initial_weights():
    keys = jax.random.split(jax.random.key(3), 2)

    def final(key):
        return tx.train(gaussian((2, 3, 2), scale=0.5, key=key), TASK, FLOW, [1.0]).observed[-1]

    together = jax.vmap(final)(keys)
    np.testing.assert_allclose(together, [final(key) for key in keys], rtol=1e-7)


class Counting(tx.AbstractTask):
    """Counts how often its loss is traced."""

    optimum: jax.Array
    traces: list = eqx.field(static=True)

    def loss(self, model):
        self.traces.append(1)
        return jnp.sum((model.product - self.optimum) ** 2) / 2


class _Traces(list):
    """A counter that equals itself only, so that it may sit in a static field."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


@pytest.mark.parametrize("kind", ["flow", "steps"])
def test_compiles_once(kind):
    traces = _Traces()

    def run(seed, number, ts):
        model = gaussian((2, 3, 2), scale=0.4, key=jax.random.key(seed))
        task = Counting(number * TASK.optimum, traces)
        if kind == "flow":
            return tx.train(model, task, tx.GradientFlow(number), ts, dt0=number / 100)
        return tx.train(model, task, tx.GradientDescent(number / 20), ts)

    run(0, 1.0, [0.0, 1.0, 2.0])
    assert len(traces) > 0
    traces.clear()
    run(1, 2.0, np.asarray([0, 2, 3]))
    run(2, 0.5, np.asarray([0.1, 0.2, 0.3]))
    assert not traces


# Mini-batches.


def test_batches_that_hold_everything_are_full_descent():
    stochastic = tx.GradientDescent(0.05, batch_size=12)
    batched = tx.train(MODEL, regression(whole=True), stochastic, [0.0, 1.0], key=jax.random.key(0))
    np.testing.assert_allclose(batched.observed, tx.train(MODEL, regression(), DESCENT, [0.0, 1.0]).observed, rtol=1e-12)


def test_batches_are_drawn_afresh_and_reproducibly():
    rule, task = tx.GradientDescent(0.05, batch_size=1), regression()
    first, again, other = (tx.train(MODEL, task, rule, [1.0], key=jax.random.key(i)).observed for i in (0, 0, 1))
    assert first == again and first != other
    # Where it records does not change what it draws.
    assert tx.train(MODEL, task, rule, [0.3, 0.5, 1.0], key=jax.random.key(0)).observed[-1] == first
    # On average over draws, one step of stochastic descent is one step of full descent.
    steps = jax.vmap(lambda key: tx.train(MODEL, task, rule, [0.05], key=key).model.weights[0])(
        jax.random.split(jax.random.key(2), 2000)
    )
    full = tx.train(MODEL, task, DESCENT, [0.05]).model.weights[0]
    spread = jnp.std(steps, axis=0) / jnp.sqrt(2000)
    assert jnp.all(jnp.abs(jnp.mean(steps, axis=0) - full) < 5 * spread) and jnp.all(spread > 0)


def test_batches_need_a_key_and_a_task_that_samples():
    rule = tx.GradientDescent(0.1, batch_size=2)
    with pytest.raises(ValueError, match=r"`key` must be a JAX PRNG key.*jax\.random\.key"):
        tx.train(MODEL, regression(), rule, [1.0])
    with pytest.raises(ValueError, match=r"AbstractSampledTask\); got LinearTask"):
        tx.train(MODEL, TASK, rule, [1.0], key=jax.random.key(0))


def test_observables_of_the_state():
    momentum = tx.GradientDescent(0.05, functools.partial(optax.sgd, momentum=0.9))

    def speed(t, state, objective):
        params, (trace, *_) = state
        return t, objective.loss(params), jnp.sqrt(sum(jnp.sum(v**2) for v in jax.tree.leaves(trace)))

    seen = tx.train(MODEL, TASK, momentum, [0.05, 0.1], observe={"loss": TASK.loss, "state": tx.OfState(speed)}).observed
    ts, losses, speeds = seen["state"]
    np.testing.assert_allclose(ts, [0.05, 0.1], rtol=1e-12)
    np.testing.assert_array_equal(losses, seen["loss"])
    # After one step the momentum is the gradient at the start.
    gradient = jax.grad(TASK.loss)(MODEL)
    expected = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(speeds[0], expected, rtol=1e-12)

    flow = InertialFlow(0.5, 0.0)

    def energy(t, state, objective):
        kinetic = sum(jnp.sum(v**2) for v in jax.tree.leaves(state[1]))
        return flow.mass * kinetic / 2 + objective.loss(flow.params(state))

    # Without friction it is conserved.
    kept = tx.train(MODEL, TASK, flow, [0.0, 1.0, 3.0], observe=tx.OfState(energy)).observed
    np.testing.assert_allclose(kept, TASK.loss(MODEL), rtol=1e-7)
