"""Forecast a training run from theory, then simulate it.

The order is the point: `forecast` uses the task and the initial weights only; `simulate` then trains the network.
"""

from dataclasses import dataclass

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..analysis import compare, crossing_times
from ..core import RESULTS, Assumption, Trajectory, check_positive
from ..deep_linear import (
    AbstractLinearSolution,
    BalancedEndToEnd,
    DeepLinear,
    DeepModes,
    LambdaBalancedRiccati,
    LinearTask,
    TwoLayerModes,
)
from ..rules import GradientFlow
from ..training import train
from ._initialise import Start

# Modes weaker than this, relative to the strongest, are not waited for.
_RELEVANT = 1e-2
_POINTS = 400
_BATCH = 50  # times evaluated side by side: bounds memory, and divides the points so that one program is compiled

_NO_HORIZON = (
    "`horizon` must be given: theory says that no mode is learned from these weights in any reasonable time; smaller "
    "ones (`init_scale`) may learn, or others (`seed`)."
)


class Reading(eqx.Module):
    """What is read off a network during training.

    **Attributes:**

    - `strength`: of every mode of the task, $u^\\top W\\Sigma_{xx}\\,v$, which training takes to its singular value.
    - `loss`: the task's loss.
    """

    strength: Float[Array, "*times modes"]
    loss: Float[Array, "*times"]


class Reader(eqx.Module):
    """Reads the modes of a task off a linear map or a network."""

    task: LinearTask
    output_modes: Float[Array, "out modes"]
    singular_values: Float[Array, " modes"]
    input_modes: Float[Array, "in modes"]

    def __init__(self, task: LinearTask):
        u, s, vt = jnp.linalg.svd(task.cross_covariance, full_matrices=False)
        self.task, self.output_modes, self.singular_values = task, u, s
        covariance = task.input_covariance
        self.input_modes = vt.T if covariance is None else covariance @ vt.T

    def of_map(self, product: Float[Array, "out in"]) -> Reading:
        """The reading of an input-output map."""
        strength = jnp.sum(self.output_modes * (product @ self.input_modes), axis=0)
        return Reading(strength, self.task.loss_of_map(product))

    def __call__(self, model: DeepLinear) -> Reading:
        """The reading of a network."""
        return self.of_map(model.product)


@dataclass(frozen=True)
class Forecast:
    """What theory says about a training run that has not happened yet.

    **Attributes:**

    - `model`, `task`: the initial network and its task.
    - `solution`: the theory that applies, or `None` where there is none.
    - `assumptions`: what it takes for granted, measured.
    - `reader`: reads modes and loss off a network; its `singular_values` are what the modes will reach.
    - `ts`: times, from zero to the horizon.
    - `reading`: the predicted modes and loss at those times; `None` without a theory.
    - `learning_times`: when each mode reaches half of its singular value; NaN for modes that do not by then.
    """

    model: DeepLinear
    task: LinearTask
    solution: AbstractLinearSolution | None
    assumptions: tuple[Assumption, ...]
    reader: Reader
    ts: Float[Array, " times"]
    reading: Reading | None
    learning_times: Float[Array, " modes"] | None

    @property
    def theory(self) -> str:
        """Which theory, in words."""
        if self.solution is None:
            return "none applies: simulation only"
        form = "reduced equations" if isinstance(self.solution, BalancedEndToEnd) else "closed form"
        return f"{type(self.solution).__name__} ({form})"


@dataclass(frozen=True)
class Outcome:
    """How the training run went.

    **Attributes:**

    - `reading`: modes and loss at the times of the forecast.
    - `learning_times`: when each mode reached half of its singular value; NaN for modes that did not.
    - `error`: the largest difference between theory and simulation of any mode at any time, relative to the largest
      strength, and the same for the loss; `None` without a theory.
    - `trajectory`: the simulation.
    """

    reading: Reading
    learning_times: Float[Array, " modes"]
    error: Reading | None
    trajectory: Trajectory


def forecast(
    model: DeepLinear, task: LinearTask, *, start: Start = "balanced", horizon: ArrayLike | None = None
) -> Forecast:
    """Predicts gradient flow (at unit rate) from the initial weights, without training.

    **Arguments:**

    - `model`: the initial network.
    - `task`: the task.
    - `start`: how the network was initialised, which says what theory to try.
    - `horizon`: until when; `None` for half as long again as the predicted learning times take.

    **Raises:**

    `ValueError` if the theory that should apply does not, the targets do not depend on the inputs, or no mode is learned
    in any reasonable time.
    """
    explained = np.vdot(task.optimum, task.cross_covariance)
    rounding = (1e3 * float(jnp.finfo(task.floor.dtype).eps)) ** 2
    if not explained > rounding * (explained + 2 * task.floor):
        raise ValueError("`task` must have something to learn; its targets do not depend linearly on its inputs.")
    reader = Reader(task)
    theory = _theory(model, task, start)
    if horizon is None:
        guess = _typical_time(reader, model)
        if theory is None:
            solution, t1 = None, 3 * guess
        elif theory is BalancedEndToEnd:
            solution, t1 = _follow_reduced_flow(model, task, reader, guess)
        else:
            solution = theory.from_model(model, task)  # pyright: ignore
            t1 = _horizon(solution, model, reader, guess)
    else:
        t1 = float(check_positive("horizon", horizon))
        if theory is BalancedEndToEnd:
            solution = _reduced_flow(model, task, t1)
        else:
            solution = None if theory is None else theory.from_model(model, task)  # pyright: ignore
    if theory is None or solution is None:
        return Forecast(model, task, None, (), reader, _uniform(reader, t1), None, None)
    ts, reading, crossings = _look(solution, reader, _uniform(reader, t1))
    times, rises = _refine(solution, reader, crossings, ts, reading.strength)
    ts, reading, _ = _look(solution, reader, _well_spread(ts, times, rises))
    return Forecast(model, task, solution, theory.assumptions(model, task), reader, ts, reading, times)


def simulate(forecast: Forecast, *, progress_meter: diffrax.AbstractProgressMeter | None = None) -> Outcome:
    """Trains the network of a forecast by gradient flow and compares.

    **Arguments:**

    - `forecast`: the forecast.
    - `progress_meter`: as in `tx.train`.

    **Raises:**

    `ValueError` if the simulation does not arrive.
    """
    # Weights must stay above what errors of integration are compared with.
    size = max(float(np.max(np.abs(w))) for w in forecast.model.weights)
    trajectory = train(
        forecast.model,
        forecast.task,
        GradientFlow(),
        forecast.ts,
        observe=forecast.reader,
        solver=diffrax.Dopri8(),
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=min(1e-14, 1e-11 * size)),
        max_steps=2**20,
        progress_meter=progress_meter,
        throw=False,
    )
    if trajectory.result != RESULTS.successful:
        raise ValueError(f"The simulation failed. {RESULTS[trajectory.result]}")
    reading = trajectory.observed
    times = crossing_times(forecast.ts, reading.strength, forecast.reader.singular_values / 2)
    error = None
    if forecast.reading is not None:
        predicted = eqx.tree_at(lambda t: t.observed, trajectory, forecast.reading)
        error = jax.tree.map(jnp.max, compare(predicted, trajectory).relative)
    return Outcome(reading, times, error, trajectory)


def _theory(model: DeepLinear, task: LinearTask, start: Start) -> type[AbstractLinearSolution] | None:
    if start == "aligned" and task.whitened:
        return TwoLayerModes if model.depth == 2 else DeepModes
    if model.depth == 2 and task.whitened:
        return LambdaBalancedRiccati
    return None if start == "lambda" else BalancedEndToEnd


def _typical_time(reader: Reader, model: DeepLinear) -> float:
    """A rough learning time of the strongest mode: its escape from the initial weights."""
    s, depth = float(reader.singular_values[0]), model.depth
    start = float(jnp.linalg.norm(model.product, ord=2))
    small = max(start, 1e-300)
    plateau = jnp.log1p(s / small) if depth <= 2 else small ** (2 / depth - 1)
    return float(1 + plateau) / (depth * s)


def _horizon(solution: AbstractLinearSolution, model: DeepLinear, reader: Reader, guess: float) -> float:
    """Half as long again as the learning times of all modes to be learned that the closed form says will be."""
    due = _due(reader, model) & _learned_in_the_end(solution, reader)
    t1 = guess
    for _ in range(60 if bool(jnp.any(due)) else 0):
        times = jnp.where(due, _look(solution, reader, _uniform(reader, t1))[-1], 0.0)
        if not bool(jnp.any(jnp.isnan(times))):
            return 1.5 * float(jnp.max(times))
        t1 = 2 * t1
    raise ValueError(_NO_HORIZON)


def _follow_reduced_flow(
    model: DeepLinear, task: LinearTask, reader: Reader, guess: float
) -> tuple[AbstractLinearSolution, float]:
    """Integrates the reduced equations until as many modes are learned as the smallest layer has room for.

    Where that never comes (a saddle), five doublings of the horizon without another mode are taken for the end.
    """
    due = _due(reader, model)
    room = min(int(jnp.sum(due)), *model.sizes)
    t1, learned, idle = guess, 0, 0
    for _ in range(16 if room else 0):
        solution = _reduced_flow(model, task, t1)
        times = jnp.where(due, _look(solution, reader, _uniform(reader, t1))[-1], jnp.nan)
        before, learned = learned, int(jnp.sum(~jnp.isnan(times)))
        idle = idle + 1 if learned == before else 0
        if learned >= room or (learned and idle == 5):
            t1 = 1.5 * float(jnp.nanmax(times))
            return _reduced_flow(model, task, t1), t1
        t1 = 2 * t1
    raise ValueError(_NO_HORIZON)


def _reduced_flow(model: DeepLinear, task: LinearTask, t1: float) -> BalancedEndToEnd:
    return BalancedEndToEnd.from_model(model, task, t1=t1, max_steps=max(2**12, 2**19 // task.optimum.size))


def _uniform(reader: Reader, t1: float) -> Array:
    return jnp.linspace(0.0, t1, _POINTS, dtype=reader.singular_values.dtype)


def _well_spread(uniform: Array, times: Array, rises: Array) -> Array:
    """As many times, uniform and geometric, with four close to each learning time, which those of a simulation need."""
    known = np.asarray(times)[~np.isnan(times)][:40]
    if known.size == 0:
        return uniform
    offsets = 0.02 * np.asarray([-1.5, -0.5, 0.5, 1.5])
    close = known[:, None] + offsets[None, :] * np.asarray(rises)[~np.isnan(times)][:40, None]
    t1 = float(uniform[-1])
    close = close[(close > 0) & (close < t1)]
    rest = uniform.size - close.size
    early = np.geomspace(0.1 * known.min(), t1, rest // 3, endpoint=False)
    ts = np.sort(np.concatenate([close, early, np.linspace(0.0, t1, rest - rest // 3)]))
    return jnp.asarray(ts, uniform.dtype) if np.all(np.diff(ts) > 0) else uniform


@eqx.filter_jit
def _due(reader: Reader, model: DeepLinear) -> Array:
    """The modes that are waited for: strong ones that do not start beyond half of their strength."""
    s = reader.singular_values
    return (s > _RELEVANT * s[0]) & (reader(model).strength < s / 2)


@eqx.filter_jit
def _look(solution: AbstractLinearSolution, reader: Reader, ts: Array) -> tuple[Array, Reading, Array]:
    """The times, the readings there, and when each mode reaches half of its singular value (or NaN)."""
    reading = jax.lax.map(lambda t: reader.of_map(solution.product(t)), ts, batch_size=_BATCH)
    return ts, reading, crossing_times(ts, reading.strength, reader.singular_values / 2)


@eqx.filter_jit
def _learned_in_the_end(solution: AbstractLinearSolution, reader: Reader) -> Array:
    return reader.of_map(solution.product_of(solution.limit())).strength > reader.singular_values / 2


@eqx.filter_jit
def _refine(
    solution: AbstractLinearSolution, reader: Reader, times: Array, ts: Array, strengths: Array
) -> tuple[Array, Array]:
    """Crossing times by bisection and Newton's method on the theory itself; also the time each mode takes to rise."""
    halves, index = reader.singular_values / 2, jnp.arange(times.shape[0])
    after = jnp.clip(jnp.searchsorted(ts, times), 1, ts.shape[0] - 1)
    below = strengths[after - 1, index] < halves

    def strength(t):
        state = solution.evaluate(t)
        # The theory's own slope: to differentiate the closed form would take twice as long to compile.
        slope = solution.vector_field(t, state)
        return jax.jvp(lambda state: reader.of_map(solution.product_of(state)).strength, (state,), (slope,))

    def narrow(step, carry):
        t, first, last, _ = carry
        values, slopes = (jnp.diagonal(x) for x in jax.vmap(strength)(t))
        later = (values < halves) == below
        first, last = jnp.where(later, t, first), jnp.where(later, last, t)
        # A mode may rise in a small part of the time between two points, where Newton's method would not find it.
        newton = jnp.clip(t - (values - halves) / slopes, first, last)
        return jnp.where(step < 30, (first + last) / 2, newton), first, last, slopes

    first, last = ts[after - 1], ts[after]
    t, _, _, slopes = jax.lax.fori_loop(0, 34, narrow, ((first + last) / 2, first, last, halves))
    return jnp.where(jnp.isnan(times), jnp.nan, t), halves / jnp.abs(slopes)
