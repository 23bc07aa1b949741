"""Forecast a training run from theory, then simulate it.

The order is the point: `forecast` uses the task and the initial weights only; `simulate` then trains the network.
"""

from dataclasses import dataclass
from typing import Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..analysis import compare, crossing_times
from ..core import Assumption, Trajectory, check_positive
from ..deep_linear import (
    AbstractLinearSolution,
    BalancedEndToEnd,
    DeepLinear,
    DeepModes,
    LambdaBalancedRiccati,
    LinearTask,
    TwoLayerModes,
    aligned,
    balanced,
    lambda_balanced,
)
from ..rules import GradientFlow
from ..training import train

Start = Literal["balanced", "aligned", "lambda"]

# Modes weaker than this, relative to the strongest, are not waited for.
_RELEVANT = 1e-2
_POINTS = 400
_MAX_STEPS = 4096  # of the reduced equations, whose steps are all kept
_BATCH = 50  # times evaluated side by side: bounds memory, and divides the points so that one program is compiled


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


def initialise(
    task: LinearTask,
    *,
    start: Start = "balanced",
    depth: int = 2,
    width: int | None = None,
    init_scale: ArrayLike = 1e-3,
    lam: ArrayLike = 0.0,
    key: PRNGKeyArray,
) -> DeepLinear:
    """An initial network.

    **Arguments:**

    - `task`: the task.
    - `start`: `"balanced"`, random and balanced; `"aligned"`, balanced and aligned with the task; `"lambda"`, two random
      layers with $W_2^\\top W_2 - W_1W_1^\\top = \\lambda I$.
    - `depth`: the number of layers of weights.
    - `width`: of the hidden layers; `None` for the smaller one of the numbers of inputs and outputs.
    - `init_scale`: the size of each layer's singular values (for `"lambda"`, of the smaller layer's entries).
    - `lam`: $\\lambda$, for `"lambda"` only.
    - `key`: draws the weights.

    **Raises:**

    `ValueError` for options that do not go together.
    """
    n_out, n_in = task.optimum.shape
    width = min(n_in, n_out) if width is None else width
    if depth < 1 or width < 1:
        raise ValueError(f"`depth` and `width` must be at least 1; got {depth} and {width}.")
    scale = check_positive("init_scale", init_scale)
    if start == "lambda":
        if depth != 2:
            raise ValueError(f"`depth` must be 2 for a lambda-balanced start; got {depth}.")
        return lambda_balanced((n_in, width, n_out), lam=lam, scale=scale, key=key)
    if float(lam) != 0:
        raise ValueError(f"`lam` is for start 'lambda' only; got {float(lam)} with {start!r}.")
    hidden = (width,) * (depth - 1)
    if start == "aligned":
        return aligned(task, hidden, strength=scale**depth, key=key)
    if start == "balanced":
        return balanced((n_in, *hidden, n_out), scale=scale, key=key)
    raise ValueError(f"`start` must be 'balanced', 'aligned' or 'lambda'; got {start!r}.")


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

    `ValueError` if the theory that should apply does not, or no mode is learned in any reasonable time.
    """
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
            t1 = _horizon(solution, reader, guess)
    else:
        t1 = float(check_positive("horizon", horizon))
        if theory is BalancedEndToEnd:
            solution = BalancedEndToEnd.from_model(model, task, t1=t1, max_steps=_MAX_STEPS)
        else:
            solution = None if theory is None else theory.from_model(model, task)  # pyright: ignore
    if theory is None or solution is None:
        return Forecast(model, task, None, (), reader, _uniform(reader, t1), None, None)
    ts, _, crossings = _look(solution, reader, _uniform(reader, t1))
    times, rises = _refine(solution, reader, crossings, ts[-1])
    ts, reading, _ = _look(solution, reader, _well_spread(ts, times, rises))
    return Forecast(model, task, solution, theory.assumptions(model, task), reader, ts, reading, times)


def simulate(forecast: Forecast, *, progress_meter: diffrax.AbstractProgressMeter | None = None) -> Outcome:
    """Trains the network of a forecast by gradient flow and compares.

    **Arguments:**

    - `forecast`: the forecast.
    - `progress_meter`: as in `tx.train`.
    """
    trajectory = train(
        forecast.model,
        forecast.task,
        GradientFlow(),
        forecast.ts,
        observe=forecast.reader,
        solver=diffrax.Dopri8(),
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-14),
        max_steps=2**20,
        progress_meter=progress_meter,
    )
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


def _horizon(solution: AbstractLinearSolution, reader: Reader, guess: float) -> float:
    """Half as long again as the learning times of all relevant modes that the closed form says will be learned."""
    due = _relevant(reader) & _learned_in_the_end(solution, reader)
    if not bool(jnp.any(due)):
        raise ValueError("`horizon` must be given: theory says that no mode will be learned from these weights.")
    t1 = guess
    for _ in range(60):
        times = jnp.where(due, _look(solution, reader, _uniform(reader, t1))[-1], 0.0)
        if not bool(jnp.any(jnp.isnan(times))):
            return 1.5 * float(jnp.max(times))
        t1 = 2 * t1
    raise ValueError("`horizon` must be given: the modes take more than any reasonable time to be learned.")


def _follow_reduced_flow(
    model: DeepLinear, task: LinearTask, reader: Reader, guess: float
) -> tuple[AbstractLinearSolution, float]:
    """Integrates the reduced equations until as many relevant modes are learned as the smallest layer has room for.

    Where that never comes (a saddle), five doublings of the horizon without another mode are taken for the end.
    """
    relevant = _relevant(reader)
    room = min(int(jnp.sum(relevant)), *model.sizes)
    t1, learned, idle = guess, 0, 0
    for _ in range(16):
        solution = BalancedEndToEnd.from_model(model, task, t1=t1, max_steps=_MAX_STEPS)
        times = jnp.where(relevant, _look(solution, reader, _uniform(reader, t1))[-1], jnp.nan)
        before, learned = learned, int(jnp.sum(~jnp.isnan(times)))
        idle = idle + 1 if learned == before else 0
        if learned >= room or (learned and idle == 5):
            t1 = 1.5 * float(jnp.nanmax(times))
            return BalancedEndToEnd.from_model(model, task, t1=t1, max_steps=_MAX_STEPS), t1
        t1 = 2 * t1
    raise ValueError("`horizon` must be given: no mode is learned in any reasonable time.")


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


def _relevant(reader: Reader) -> Array:
    return reader.singular_values > _RELEVANT * reader.singular_values[0]


@eqx.filter_jit
def _look(solution: AbstractLinearSolution, reader: Reader, ts: Array) -> tuple[Array, Reading, Array]:
    """The times, the readings there, and when each mode reaches half of its singular value (or NaN)."""
    reading = jax.lax.map(lambda t: reader.of_map(solution.product(t)), ts, batch_size=_BATCH)
    return ts, reading, crossing_times(ts, reading.strength, reader.singular_values / 2)


@eqx.filter_jit
def _learned_in_the_end(solution: AbstractLinearSolution, reader: Reader) -> Array:
    return reader.of_map(solution.product_of(solution.limit())).strength > reader.singular_values / 2


@eqx.filter_jit
def _refine(solution: AbstractLinearSolution, reader: Reader, times: Array, t1: Array) -> tuple[Array, Array]:
    """Newton's method on the theory itself, from interpolated crossing times; also the time each mode takes to rise."""
    halves = reader.singular_values / 2

    def strength(t):
        state = solution.evaluate(t)
        # The theory's own slope: to differentiate the closed form would take twice as long to compile.
        slope = solution.vector_field(t, state)
        return jax.jvp(lambda state: reader.of_map(solution.product_of(state)).strength, (state,), (slope,))

    def newton(_, carry):
        t, _ = carry
        values, slopes = (jnp.diagonal(x) for x in jax.vmap(strength)(t))
        return jnp.clip(t - (values - halves) / slopes, 0.0, t1), halves / jnp.abs(slopes)

    missing = jnp.isnan(times)
    t, rises = jax.lax.fori_loop(0, 4, newton, (jnp.where(missing, 0.0, times), jnp.zeros_like(times)))
    return jnp.where(missing, jnp.nan, t), rises
