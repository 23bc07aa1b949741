"""What `train` does with options, events, runs that fail and bad input."""

import inspect

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
from toys import DESCENT, FLOW, MODEL, TASK, both_rules

import tractax as tx
from tractax.deep_linear import DeepLinear


class Broken(tx.AbstractTask):
    """A loss that is NaN everywhere."""

    def loss(self, model):
        return jnp.nan * jnp.sum(model.product)


class Unbounded(tx.AbstractTask):
    """A loss that falls without bound, so that the flow leaves every ball in finite time."""

    def loss(self, model):
        return -jnp.sum(model.product**2)


# Options, events, failures.


def small_loss(t, y, args, **kwargs):
    return args.loss(y) - 0.5


def test_event_stops_the_run():
    event = diffrax.Event(small_loss, optimistix.Newton(1e-10, 1e-10))
    trajectory = tx.train(MODEL, TASK, FLOW, [0.0, 0.2, 5.0, 6.0], event=event)
    assert trajectory.result == tx.RESULTS.event_occurred
    assert float(TASK.loss(trajectory.model)) == pytest.approx(0.5, rel=1e-6)
    assert jnp.isfinite(trajectory.observed).tolist() == [True, True, False, False]
    assert jnp.all(trajectory.observed[2:] == jnp.inf)
    np.testing.assert_array_equal(trajectory.evaluate(0.2), trajectory.observed[1])
    assert trajectory.evaluate(1.0) == jnp.inf


@pytest.mark.slow
def test_solver_options_pass_through():
    dopri = tx.train(MODEL, TASK, FLOW, [2.0], solver=diffrax.Dopri8())
    tight = diffrax.PIDController(rtol=1e-11, atol=1e-13)
    tighter = tx.train(MODEL, TASK, FLOW, [2.0], solver=diffrax.Dopri8(), stepsize_controller=tight)
    assert int(tighter.stats["num_steps"]) > int(dopri.stats["num_steps"])
    np.testing.assert_allclose(dopri.observed, tighter.observed, rtol=1e-6)
    # Explicit Euler with constant steps is gradient descent.
    options = {"solver": diffrax.Euler(), "stepsize_controller": diffrax.ConstantStepSize(), "dt0": 0.05}
    euler = tx.train(MODEL, TASK, FLOW, [0.0, 2.0], **options)
    np.testing.assert_allclose(euler.observed, tx.train(MODEL, TASK, DESCENT, [0.0, 2.0]).observed, rtol=1e-12)


@both_rules
def test_nan_is_reported_as_divergence(rule):
    with pytest.raises(Exception, match=r"left the finite numbers.*learning rate above 2 / sharpness"):
        tx.train(MODEL, Broken(), rule, [0.0, 1.0])
    trajectory = tx.train(MODEL, Broken(), rule, [0.0, 1.0], throw=False)
    assert trajectory.result == tx.RESULTS.diverged
    assert int(trajectory.stats["num_steps"]) < 100


def test_constant_steps_into_nan_are_divergence():
    options = {"stepsize_controller": diffrax.ConstantStepSize(), "dt0": 1.0, "throw": False}
    trajectory = tx.train(MODEL, TASK, tx.GradientFlow(1e-3), [0.0, 50.0], **options)
    assert trajectory.result == tx.RESULTS.diverged


def test_own_least_step_keeps_its_code():
    controller = diffrax.PIDController(rtol=1e-8, atol=1e-12, dtmin=0.1, force_dtmin=False)
    trajectory = tx.train(MODEL, TASK, FLOW, [2.0], stepsize_controller=controller, throw=False)
    assert trajectory.result == tx.RESULTS.dt_min_reached


def test_diverging_descent():
    trajectory = tx.train(MODEL, TASK, tx.GradientDescent(2.0), [0.0, 2.0, 200.0], throw=False)
    assert trajectory.result == tx.RESULTS.diverged
    assert jnp.isfinite(trajectory.observed).tolist() == [True, True, False]
    with pytest.raises(Exception, match="left the finite numbers"):
        tx.train(MODEL, TASK, tx.GradientDescent(2.0), [0.0, 200.0])


@pytest.mark.slow
def test_too_many_steps():
    with pytest.raises(Exception, match="maximum number of solver steps"):
        tx.train(MODEL, TASK, FLOW, [0.0, 0.01, 5.0], max_steps=4)
    trajectory = tx.train(MODEL, TASK, FLOW, [0.0, 0.01, 5.0], max_steps=4, throw=False)
    assert trajectory.result == tx.RESULTS.max_steps_reached
    assert jnp.isfinite(trajectory.observed).tolist() == [True, True, False]
    # A solution that ceases to exist is not waited for.
    escape = tx.train(MODEL, Unbounded(), FLOW, [0.0, 100.0], max_steps=2000, throw=False)
    assert escape.result == tx.RESULTS.max_steps_reached


@both_rules
def test_failure_is_raised_under_jit(rule):
    @jax.jit
    def run(weights):
        return tx.train(DeepLinear(weights), Broken(), rule, [1.0]).observed

    with pytest.raises(Exception, match="left the finite numbers"):
        jax.block_until_ready(run(MODEL.weights))


@both_rules
@pytest.mark.parametrize("double", [True, False])
def test_progress_meter(rule, double, capfd):
    if rule is FLOW and not double:
        # diffrax's own text meter starts from the default precision.
        rule = tx.GradientDescent(0.05, optax.adam)
    dtype = jnp.float64 if double else jnp.float32
    model, task = jax.tree.map(lambda x: x.astype(dtype), (MODEL, TASK))
    jax.block_until_ready(tx.train(model, task, rule, [5.0], progress_meter=diffrax.TextProgressMeter(0.1)).observed)
    jax.effects_barrier()
    shown = capfd.readouterr().out.split()
    assert shown[0] == "0.00%" and shown[-1] == "100.00%" and len(shown) > 8


# Bad input.


@pytest.mark.parametrize(
    ("ts", "message"),
    [
        ([-1.0, 1.0], "`ts` must be non-negative; it starts at -1.0"),
        ([0.0, 2.0, 1.0], "`ts` must increase strictly"),
        ([0.0, 0.0], "`ts` must increase strictly"),
        ([0.0, np.nan], "`ts` must be finite"),
        ([0.0, np.inf], "`ts` must be finite"),
        ([], r"`ts` must have shape \(any,\) without empty axes; got \(0,\)"),
        (1.0, r"`ts` must have shape \(any,\) without empty axes; got \(\)"),
        (np.ones((2, 2)), r"got \(2, 2\)"),
        (np.asarray([1j]), "`ts` must be real; got dtype complex128"),
    ],
)
def test_refuses_bad_times(ts, message):
    with pytest.raises(ValueError, match=message):
        tx.train(MODEL, TASK, FLOW, ts)


def test_refuses_times_that_merge_in_the_models_precision():
    model = jax.tree.map(lambda x: x.astype(jnp.float32), MODEL)
    with pytest.raises(ValueError, match=r"increase strictly \(in float32\)"):
        tx.train(model, TASK, FLOW, [1.0, 1.0 + 1e-9])


class OtherRule(tx.core.AbstractRule):
    """Neither a flow nor steps."""


def test_refuses_what_is_no_model_task_or_rule():
    # Without the type checks that the tests switch on.
    train = inspect.unwrap(tx.train)
    with pytest.raises(ValueError, match="`model` must contain floating-point arrays"):
        train(eqx.nn.Identity(), TASK, FLOW, [1.0])
    with pytest.raises(ValueError, match="`model` must contain real arrays to train; it has complex ones"):
        train(eqx.nn.Linear(2, 2, dtype=jnp.complex128, key=jax.random.key(0)), TASK, FLOW, [1.0])
    with pytest.raises(ValueError, match=r"`task` must be a task, .* got ndarray"):
        train(MODEL, np.eye(2), FLOW, [1.0])
    for rule in (OtherRule(), tx.GradientFlow, "descent"):
        with pytest.raises(ValueError, match="`rule` must be a flow rule or a step rule"):
            train(MODEL, TASK, rule, [1.0])
    with pytest.raises(ValueError, match="`stepsize_controller` must be given for LangevinFlow, which has noise"):
        train(MODEL, TASK, tx.rules.LangevinFlow(0.1), [1.0], key=jax.random.key(0))
    with pytest.raises(ValueError, match="`optimiser` must return an optax transformation; got "):
        train(MODEL, TASK, tx.GradientDescent(0.1, lambda rate: rate), [1.0])
    for observe in ("loss", [], {"loss": 1.0}):
        with pytest.raises(ValueError, match="`observe` must be a function of the model"):
            train(MODEL, TASK, FLOW, [1.0], observe=observe)


@pytest.mark.parametrize(
    "option",
    [
        {"solver": diffrax.Euler()},
        {"stepsize_controller": diffrax.ConstantStepSize()},
        {"dt0": 0.1},
        {"event": diffrax.Event(small_loss)},
        {"max_steps": 10},
    ],
    ids=lambda option: next(iter(option)),
)
def test_step_rules_refuse_the_options_of_flows(option):
    name = next(iter(option))
    with pytest.raises(ValueError, match=f"`{name}` applies to flow rules only; GradientDescent takes discrete steps"):
        tx.train(MODEL, TASK, DESCENT, [1.0], **option)
