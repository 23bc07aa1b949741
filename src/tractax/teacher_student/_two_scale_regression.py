r"""Linear regression with features of several scales, as the sample grows: epoch-wise double descent.

Set-up. $n$ examples $x\sim\mathcal N(0, \Sigma)$ with $d_j = c_jn$ inputs of variance $s_j$, labels
$y = x\cdot w^* + \sigma\zeta$, loss $\tfrac1{2n}\lVert Xw - y\rVert^2$ (a mean over examples), gradient flow
$\tau\dot w = -\nabla L$ or gradient descent on the full loss, from weights that know nothing of the examples. The excess
risk is $\tfrac12(w - w^*)^\top\Sigma(w - w^*)$.

As $n\to\infty$ at fixed $c_j$ it no longer depends on the sample, and is $\tfrac12[B(t) + \sigma^2V(t)]$: with
$S = X^\top X/n$ and $u = w^* - w(0)$, the bias is $B = u^\top e^{-tS}\,\Sigma\,e^{-tS}u$ and the variance
$V = \tfrac1n\mathrm{tr}\,\Sigma\,(1 - e^{-tS})^2S^{-1}$, inverse Laplace transforms of what is known of large samples.

With two scales the fast features fit the noise before the slow ones have learned anything: the risk falls, rises and
falls again. Errors are $O(1/n)$ in the mean over samples, noise and teachers, $O(n^{-1/2})$ for a single sample.

Source: Pezeshki, Mitra, Bengio and Lajoie 2021, arXiv 2112.03215, who couple early stopping to a ridge inside a replica
calculation; the formulas here need no such approximation.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    as_float_array,
    check_matrix,
    check_positive,
    enforce,
    require,
)
from ..rules import GradientDescent, GradientFlow
from ..special import talbot
from ._gaussian_regression import RegressionSample
from ._large_sample import LargeSample, largest_eigenvalue
from ._least_squares_path import RegressionOverlaps, check_least_squares, check_rule, overlaps_of
from ._linear_model import LinearModel, check_linear


class TwoScaleRegressionFlow(AbstractSolution[RegressionOverlaps]):
    r"""Linear regression in the limit of a large sample, with features of two scales, or any number.

    Made from the levels of the covariance, or by `from_model`. It needs `jax_enable_x64`. Results have eleven digits, and
    an absolute accuracy of 1e-13: a bias that has decayed further is not resolved. Of gradient descent it knows whole
    steps only, as a simulation does: `evaluate(t)` is the state after `round(t / rule.time_per_step)` of them.

    **Arguments:**

    - `variances`: $s_j \ge 0$, of the inputs of each level, shape `(levels,)`.
    - `ratios`: $c_j > 0$, how many inputs a level has for each example.
    - `signal`: $\lVert w^*_j\rVert^2$, summed over the inputs of a level.
    - `noise_variance`: $\sigma^2$.
    - `start`: $\lVert w_j(0)\rVert^2$; zero by default.
    - `start_overlap`: $w^*_j\cdot w_j(0)$; zero by default.
    - `rule`: `tx.GradientFlow()` by default, or `tx.GradientDescent` with a learning rate up to the inverse of the
      largest eigenvalue.
    - `task`: the sample that `reduce` measures models on, if any.

    **Raises:**

    `ValueError` for shapes that differ, negative numbers, an impossible overlap, a rule of another kind or too large a
    rate, or without `jax_enable_x64`.
    """

    variances: Float[Array, " levels"]
    ratios: Float[Array, " levels"]
    signal: Float[Array, " levels"]
    noise_variance: Float[Array, ""]
    start: Float[Array, " levels"]
    start_overlap: Float[Array, " levels"]
    rule: GradientFlow | GradientDescent
    task: RegressionSample | None
    kind: ClassVar[Kind] = "asymptotic"

    def __init__(
        self,
        variances: Float[ArrayLike, " levels"],
        ratios: Float[ArrayLike, "..."],
        signal: Float[ArrayLike, "..."],
        noise_variance: ArrayLike = 0.0,
        *,
        start: Float[ArrayLike, "..."] | None = None,
        start_overlap: Float[ArrayLike, "..."] | None = None,
        rule: AbstractRule | None = None,
        task: RegressionSample | None = None,
    ):
        variances = check_positive("variances", check_matrix("variances", variances, (None,)), zero=True)
        self.variances = require(variances, jnp.max(variances) > 0, "`variances` must not all vanish.")
        shape, dtype = self.variances.shape, self.variances.dtype

        def levels(name: str, value: PyTree) -> Array:
            return jnp.zeros(shape, dtype) if value is None else check_matrix(name, value, shape).astype(dtype)

        self.ratios = check_positive("ratios", levels("ratios", ratios))
        self.signal = check_positive("signal", levels("signal", signal), zero=True)
        noise_variance = check_positive("noise_variance", noise_variance, zero=True)
        self.noise_variance = check_matrix("noise_variance", noise_variance, ()).astype(dtype)
        self.start = check_positive("start", levels("start", start), zero=True)
        overlap = levels("start_overlap", start_overlap)
        # Squares of single precision may underflow.
        possible = jnp.all(jnp.abs(overlap) <= jnp.sqrt(self.start) * jnp.sqrt(self.signal) * (1 + 1e-4))
        message = "`start_overlap` must not exceed what `start` and `signal` allow."
        self.start_overlap = require(overlap, possible, message)
        self.rule = _check_steps(check_rule(type(self).__name__, rule), self.variances, self.ratios)
        self.task = task
        # The results would be accurate to no digit.
        talbot()

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "TwoScaleRegressionFlow":
        """The limit that a linear model and a sample belong to: every eigenvalue of the covariance is a level.

        **Arguments:**

        - `model`, `task`: a `LinearModel` and a `RegressionSample`.
        - `rule`: `tx.GradientFlow` without weight decay (the default), or `tx.GradientDescent` on the full loss.
        - `check`: whether to refuse a sample that is further from typical than chance explains.

        **Raises:**

        `ValueError` for another kind of model, task or rule, and for what `check` refuses.
        """
        initial, task, rule = check_least_squares(cls.__name__, model, task, rule)
        population = task.population
        start, teacher = population.to_modes(initial), population.to_modes(population.teacher)
        solution = cls(
            population.variances,
            jnp.full_like(teacher, 1 / task.inputs.shape[0]),
            teacher**2,
            population.noise_scale**2,
            start=start**2,
            start_overlap=start * teacher,
            rule=rule,
            task=task,
        )
        return enforce(solution, cls.__name__, sample_assumptions(task)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the sample is from what its population leads to expect; tolerances are what chance leaves."""
        return sample_assumptions(check_least_squares(cls.__name__, model, task, rule)[1])

    def bias(self, t: ArrayLike) -> Float[Array, ""]:
        """$B(t)$: twice the excess risk without label noise."""
        return self._bias(_check_time(t))

    def variance(self, t: ArrayLike) -> Float[Array, ""]:
        """$\\sigma^2V(t)$: what label noise adds to twice the excess risk."""
        return self._variance(_check_time(t))

    @eqx.filter_jit
    def _bias(self, t: Float[Array, ""]) -> Float[Array, ""]:
        sample = self._sample
        return sample.bias(self._risk(self._missing), sample.nodes(self._elapsed(t))).astype(self.variances.dtype)

    @eqx.filter_jit
    def _variance(self, t: Float[Array, ""]) -> Float[Array, ""]:
        sample, t = self._sample, self._elapsed(t)
        return self._scaled(sample.variance(sample.nodes(t), sample.nodes(2 * t)))

    @eqx.filter_jit
    def state(self, t: Float[Array, ""]) -> RegressionOverlaps:
        """The state at time `t`."""
        sample, t, dtype = self._sample, self._elapsed(t), self.variances.dtype
        now, twice = sample.nodes(t), sample.nodes(2 * t)
        risk, teacher = self._risk(self._missing), self.signal @ self.variances
        train = sample.train(risk, self.noise_variance.astype(jnp.float64), twice).astype(dtype) / 2
        excess = (sample.bias(risk, now).astype(dtype) + self._scaled(sample.variance(now, twice))) / 2
        cross = teacher - sample.decay(self._risk(self.signal - self.start_overlap), now).astype(dtype)
        return RegressionOverlaps(2 * excess + 2 * cross - teacher, cross, train, excess)

    def limit(self) -> RegressionOverlaps:
        """The state as t → ∞: of the least-squares solution nearest to where training started.

        At the critical ratio, $\\sum_jc_j = 1$, noise makes the risk infinite.
        """
        return self.state(jnp.asarray(jnp.inf, self.variances.dtype))

    def reduce(self, model: LinearModel) -> RegressionOverlaps:
        """The state of a model on the sample that the solution was made from."""
        if self.task is None:
            raise ValueError(
                f"`task` must be given to {type(self).__name__} to measure models; got None. Use from_model."
            )
        return overlaps_of(self.task, check_linear(model, self.task.inputs.shape[1]).astype(self.variances.dtype))

    @property
    def _sample(self) -> LargeSample:
        step = self.rule.learning_rate if isinstance(self.rule, GradientDescent) else None
        return LargeSample(self.variances, self.ratios, step)

    @property
    def _missing(self) -> Float[Array, " levels"]:
        """What is to be learned, ‖w* − w(0)‖² in each level."""
        return self.signal - 2 * self.start_overlap + self.start

    def _risk(self, power: Float[Array, " levels"]) -> Float[Array, " levels"]:
        return (self.variances * power).astype(jnp.float64)

    def _scaled(self, variance: Float[Array, ""]) -> Float[Array, ""]:
        """By the label noise; without any there is no variance, even where it would be infinite."""
        noisy = self.noise_variance > 0
        return self.noise_variance * jnp.where(noisy, variance, 0.0).astype(self.variances.dtype)

    def _elapsed(self, t: ArrayLike) -> Float[Array, ""]:
        """The time of gradient flow with unit time constant, in double precision."""
        t = jnp.asarray(t).astype(jnp.float64)
        if isinstance(self.rule, GradientFlow):
            return t / self.rule.time_constant.astype(jnp.float64)
        steps = jnp.rint(t / self.rule.time_per_step.astype(jnp.float64))
        return steps * self.rule.learning_rate.astype(jnp.float64)


def sample_assumptions(task: RegressionSample) -> tuple[Assumption, ...]:
    """How far a sample is from typical, in standard deviations of what chance does at its size."""
    population, examples = task.population, task.inputs.shape[0]
    seen = population.variances > 0
    white = population.to_modes(task.inputs) / jnp.sqrt(jnp.where(seen, population.variances, 1.0))[None, :]
    white = jnp.where(seen[None, :], white, 0.0)
    size = jnp.sum(seen).astype(white.dtype)
    chance = jnp.sqrt(2 / (size * examples))
    gram = white @ white.T if examples < white.shape[1] else white.T @ white
    # For independent examples the mean of tr (XᵀX/n)² is d (1 + (d + 1)/n).
    second = jnp.sum(gram**2) / (size * examples * (examples + size + 1))
    noise = jnp.mean((task.labels - task.inputs @ population.teacher) ** 2)
    variance = population.noise_scale**2
    excess = jnp.abs(noise - variance) / jnp.where(variance > 0, variance, 1.0)
    return (
        Assumption(
            "inputs with the covariance of the population", jnp.abs(jnp.trace(gram) / (size * examples) - 1) / chance, 6.0
        ),
        Assumption("independent inputs and examples", jnp.abs(second - 1) / chance, 12.0),
        Assumption("labels with the noise of the population", excess * (examples / 2) ** 0.5, 6.0),
    )


def _check_time(t: ArrayLike) -> Float[Array, ""]:
    t = as_float_array("t", t)
    return require(t, t >= 0, f"`t` must be a time, t >= 0; got {t}.")


def _check_steps(rule: GradientFlow | GradientDescent, variances: Array, ratios: Array) -> GradientFlow | GradientDescent:
    """The rule, if its steps are small enough for the contours of the inverse transforms."""
    if isinstance(rule, GradientFlow):
        return rule
    edge = largest_eigenvalue(variances, jnp.where(variances > 0, ratios, 0.0))
    small = rule.learning_rate.astype(edge.dtype) * edge <= 1 + 1e-6
    return require(
        rule, small, f"`rule` must have a learning rate of at most 1/{edge}, the inverse of the largest eigenvalue."
    )
