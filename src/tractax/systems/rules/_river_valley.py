"""A river valley under a schedule of learning rates, and the logits that make valleys and rivers."""

import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import compare
from ...core import RESULTS, Kind, Objective, Trajectory
from ...plotting import overlay
from ...rules import (
    CertainToken,
    GradientFlow,
    RiverDescent,
    RiverPoint,
    RiverState,
    RiverValley,
    ScheduledDescent,
    TokenLogit,
    TokenTask,
    optimal_decay,
    warmup_stable_decay,
)
from ...training import ensemble, train
from .._system import AbstractRunSystem, AbstractSystem, Citation, Run, Signature, Tolerance

_CITATION = Citation("Wen, Li, Wang, Hall, Liang, Ma", 2024, "2410.05192")
_TASK = functools.partial(RiverValley, 2.0, 0.03, 0.5**0.5)
_RATE = 0.4


class RiverValleySystem(AbstractSystem):
    """The noise of every step of training, followed to the end, under warmup, stable phase and decay."""

    name: ClassVar[str] = "river_valley"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "mean square across a valley and progress along its river, for any schedule of rates"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def measure(self) -> Float[Array, ""]:
        """The largest relative error of the moments after any step."""
        model, task = RiverPoint(0.3, 0.1), _TASK()
        rule = ScheduledDescent(warmup_stable_decay(_RATE, task.curvature, 5, 30, 15), batch_size=1)
        solution = RiverDescent.from_model(model, task, rule)
        ts = jnp.arange(1.0, 51.0)
        exact = Trajectory(ts, _moments(model, task, rule), model, {}, RESULTS.successful)
        return compare(solution, exact).worst

    def draw(self, figure: Any) -> None:
        """The mean square under three decays of the rate, and the rates."""
        left, right = figure.subplots(1, 2)
        stable, decay = 10, 40
        decays = {
            "constant": jnp.full((decay,), _RATE),
            "linear": _RATE * (1 - jnp.arange(decay) / decay),
            "optimal": optimal_decay(_RATE, 2.0, decay),
        }
        ts, theory, found = jnp.arange(1.0, stable + decay + 1.0), [], []
        for number, rates in enumerate(decays.values()):
            rates = jnp.concatenate([jnp.full((stable,), _RATE), rates])
            theory.append(jax.vmap(_solve(rates).evaluate)(ts).spread)
            found.append(_mean_run(rates, ts, 4000, _key(number)).spread)
            right.plot(ts, rates, color=_colours()[number])
        overlay(left, ts, jnp.stack(theory, axis=1), jnp.stack(found, axis=1), list(decays), markers=25)
        left.set(yscale="log", xlabel="steps", ylabel="$\\mathbb{E}\\,x^2$", title="Mean of 4000 runs")
        right.set(yscale="log", xlabel="steps", ylabel="learning rate", ylim=(5e-3, 0.7))


class WarmupStableDecaySystem(AbstractSystem):
    """The mean loss of noisy descent in a river valley: high and parallel to the river, until the rate decays."""

    name: ClassVar[str] = "warmup_stable_decay"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "the loss of a stable phase hides its progress, which a short decay shows"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Signature] = Signature(5.0, "fall of the loss in the decay, over as many stable steps")

    phases: ClassVar[tuple[int, int, int]] = (10, 170, 20)

    def measure(self) -> Float[Array, ""]:
        """By how much the mean loss of 20 000 runs falls in the decay, in units of what as many stable steps gain."""
        warmup, stable, decay = self.phases
        ends = jnp.asarray([warmup + stable - 4.0 * decay, warmup + stable, warmup + stable + decay])
        rates = warmup_stable_decay(_RATE, 2.0, *self.phases)
        before, at, after = _solve(rates).loss(_mean_run(rates, ends, 20_000, _key(0)))
        return (at - after) / ((before - at) / 4)

    def draw(self, figure: Any) -> None:
        """The mean loss: warmup, stable phase and decay; a small rate throughout; and the river."""
        axes = figure.subplots()
        rates = warmup_stable_decay(_RATE, 2.0, *self.phases)
        ts = jnp.arange(rates.size + 1.0)
        labels = ("warmup, stable, decay", "constant", "constant, a tenth")
        cases = (rates, jnp.full_like(rates, _RATE), jnp.full_like(rates, _RATE / 10))
        theory = jnp.stack([_solve(r).loss(jax.vmap(_solve(r).evaluate)(ts)) for r in cases], axis=1)
        found = [_solve(r).loss(_mean_run(r, ts, 4000, _key(i))) for i, r in enumerate(cases)]
        overlay(axes, ts, theory, jnp.stack(found, axis=1), labels, markers=40)
        axes.plot(ts, -0.03 * jax.vmap(_solve(rates).evaluate)(ts).river, color="0.6", ls="--", label="river, $-cy$")
        axes.set(xlabel="steps", ylabel="mean loss of 4000 runs", ylim=(-0.09, 0.13))
        axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper right")


class CertainTokenSystem(AbstractRunSystem):
    """The logit of a token that always follows, from a wrong start."""

    name: ClassVar[str] = "certain_token"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "the logit of a certain token grows for ever and its curvature vanishes"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """From odds of one in twenty."""
        model, task = TokenLogit(-3.0), TokenTask(1.0)
        return Run(model, task, GradientFlow(), CertainToken.from_model(model, task), jnp.linspace(0.0, 30.0, 61))

    def draw(self, figure: Any) -> None:
        """Logit and curvature of a certain token, and of uncertain ones."""
        left, right = figure.subplots(1, 2)
        run, ts = self.run(), jnp.linspace(0.0, 30.0, 61)
        theory = jax.vmap(run.solution.evaluate)(ts)
        colours = _colours()
        for colour, p in zip(colours, (1.0, 0.9, 0.6), strict=True):
            task = TokenTask(p)
            found = train(run.model, task, GradientFlow(), ts, observe=run.solution.reduce).observed
            for axes, values in ((left, found.value), (right, task.curvature(found))):
                axes.plot(ts[::3], values[::3], "o", color=colour, mfc="white", ms=4, label=f"simulation, $p = {p:g}$")
            if p < 1:
                left.axhline(float(jnp.log(p / (1 - p))), color=colour, ls=":", lw=1.2)
                right.axhline(p * (1 - p), color=colour, ls=":", lw=1.2)
        left.plot(ts, theory.value, color=colours[0], label="theory, $p = 1$")
        right.plot(ts, TokenTask(1.0).curvature(theory), color=colours[0])
        left.set(xlabel="time $t/\\tau$", ylabel="logit $z$", title="Dotted: where uncertain tokens settle")
        right.set(xlabel="time $t/\\tau$", ylabel="curvature")
        left.legend(fontsize=8, loc="lower right")


def _key(number: int) -> Array:
    return jax.random.key(number)


def _colours() -> Any:
    import matplotlib

    return matplotlib.colormaps["viridis"]([0.0, 0.425, 0.85])


def _solve(rates: Array) -> RiverDescent:
    return RiverDescent.from_model(RiverPoint(0.0, 0.0), _TASK(), ScheduledDescent(rates, batch_size=1))


def _mean_run(rates: Array, ts: Array, runs: int, key: Array) -> RiverState:
    """The mean of many runs that differ by their noise."""
    model, task, rule = RiverPoint(0.0, 0.0), _TASK(), ScheduledDescent(rates, batch_size=1)
    reduce = _solve(rates).reduce
    members = ensemble(
        lambda key: train(model, task, rule, ts, observe=reduce, key=key).observed, jax.random.split(key, runs)
    )
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), members)


class _GivenNoise(RiverValley):
    """The valley with noise that is given instead of drawn."""

    given: Float[Array, ""]

    def __init__(self, task: RiverValley, given: Array):
        super().__init__(task.curvature, task.descent, task.noise)
        self.given = given

    def sample(self, key: Array, batch: int) -> Array:
        """The given noise."""
        del key
        return jnp.full((batch,), self.given)


@eqx.filter_jit
def _moments(model: RiverPoint, task: RiverValley, rule: ScheduledDescent) -> RiverState:
    """The moments after every step, from the derivatives of the iterates with respect to the noise of every step.

    Iterates are linear in the noise, so that the squares of these derivatives add up to their variance.
    """
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def path(noise: Array) -> RiverPoint:
        def step(carry: Any, given: Array) -> tuple[Any, RiverPoint]:
            params, count = carry
            carry = rule.step(params, count, Objective(_GivenNoise(task, given), static), key=_key(0))
            return carry, carry[0]

        return jax.lax.scan(step, (params, rule.init(params)), noise)[1]

    quiet = jnp.zeros_like(rule.rates)
    mean, slopes = path(quiet), jax.jacfwd(path)(quiet)
    return RiverState(mean.x**2 + jnp.sum(slopes.x**2, axis=1), mean.y)
