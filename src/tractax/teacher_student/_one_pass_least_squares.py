r"""One-pass stochastic gradient descent on least squares: every step sees fresh examples.

Set-up. Inputs $x\sim\mathcal N(0, K)$ in $d$ dimensions, labels $y = x\cdot\theta^* + \sigma\zeta$, loss
$\tfrac12(x\cdot\theta - y)^2$ averaged over a batch of $B$ fresh examples, steps $\theta\leftarrow\theta - g\nabla$.
Along the eigenvectors of $K$, with eigenvalues $\lambda_i$, let $r_i = \mathbb E\,(\theta - \theta^*)_i^2$ be averaged
over all examples so far. The risk is $P = \tfrac12(\sum_i\lambda_ir_i + \sigma^2)$.

`OnePassRecursion`, exact in every dimension: with $c = (1 + 1/B)/2$, a step is

$$r_i \leftarrow r_i\,\big(1 - 2g\lambda_i(1 - c\,g\lambda_i)\big) + \tfrac{2g^2}{B}\lambda_iP .$$

`OnePassLeastSquares`, homogenised SGD: as $d\to\infty$ at $g = g_0/d$ a single run no longer scatters, and

$$\frac{\mathrm dr_i}{\mathrm dk} = -2g\lambda_ir_i + \tfrac{2g^2}{B}\lambda_iP$$

in the number of steps $k$. Fluctuations of the risk are $O(d^{-1/2})$, the error of its mean is $O(1/d)$.

Both are linear with a symmetric matrix, so that one eigenvalue problem solves them for all times. Time is the rule's:
`time_per_step` for a step. With `GradientDescent(g0 / d, time_per_step=1 / d, batch_size=1)` it is steps$/d$.

Source: Paquette, Lee, Pedregosa and Paquette 2021, arXiv 2102.04396; Collins-Woodfin and Paquette 2023, arXiv 2304.06847.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from ..core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind
from ..rules import GradientDescent, plain_descent
from ..special import exprel
from ._gaussian_regression import GaussianRegression
from ._linear_model import LinearModel, check_linear
from ._symmetric_function import apply_symmetric


class SquaredErrors(eqx.Module):
    r"""How far a linear model is from its teacher.

    **Attributes:**

    - `modes`: $r_i = (\theta - \theta^*)_i^2$ along the eigenvectors of the covariance, in the order of
      `task.variances`, shape `(in,)`.
    - `risk`: $P = \tfrac12(\sum_i\lambda_ir_i + \sigma^2)$, the loss on fresh examples.
    """

    modes: Float[Array, "*times in"]
    risk: Float[Array, "*times"]


class AbstractOnePass(AbstractSolution[SquaredErrors]):
    """What the two descriptions of one-pass SGD have in common.

    **Attributes:**

    - `initial`: $r_i(0)$, shape `(in,)`.
    - `task`, `rule`: the case.
    """

    initial: Float[Array, " in"]
    task: GaussianRegression
    rule: GradientDescent

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """None to be measured: any start, covariance and learning rate is covered."""
        _case(cls.__name__, model, task, rule)
        return ()

    def reduce(self, model: LinearModel) -> SquaredErrors:
        """The squared errors of one model; theory speaks of their mean over the examples."""
        weights = check_linear(model, self.task.teacher.shape[0])
        return self._state_of(self.task.to_modes(weights - self.task.teacher) ** 2)

    def limit(self) -> SquaredErrors:
        r"""The squared errors after infinitely many steps.

        Below the threshold noise alone is left. From the threshold on errors count as infinite, unless there is neither
        noise nor anything to learn. What inputs never show stays as it was.
        """
        learned = self.task.variances > 0
        room, load = self._room, self._load(self._rate)
        stable = jnp.all(room > 0) & (load < 1)
        noise = self.task.noise_scale**2
        risk = noise / 2 / jnp.where(stable, 1 - load, 1.0)
        still = (noise == 0) & jnp.all(jnp.where(learned, self.initial, 0.0) == 0)
        left = jnp.where(stable, self._rate * risk / self._batch / jnp.where(stable, room, 1.0), jnp.inf)
        return self._state_of(jnp.where(learned, jnp.where(still, 0.0, left), self.initial))

    @abc.abstractmethod
    def stability_threshold(self) -> Float[Array, ""]:
        """The learning rate $g$ at and above which the mean risk does not settle."""

    @property
    @abc.abstractmethod
    def _curvature(self) -> float:
        """How the steps' own size enters: $c$ in the rate $2g\\lambda(1 - c\\,g\\lambda)$ of a mode."""

    @property
    def _rate(self) -> Float[Array, ""]:
        return self.rule.learning_rate.astype(self.initial.dtype)

    @property
    def _batch(self) -> int:
        assert self.rule.batch_size is not None
        return self.rule.batch_size

    @property
    def _room(self) -> Float[Array, " in"]:
        """What each mode has left before it is unstable by itself."""
        return 1 - self._curvature * self._rate * self.task.variances

    def _load(self, rate: Float[Array, ""]) -> Float[Array, ""]:
        """The risk that the noise of the steps makes of a unit of risk; training is stable while it is below one."""
        size = rate * self.task.variances
        return jnp.sum(size / (1 - self._curvature * size)) / (2 * self._batch)

    @property
    def _matrix(self) -> Float[Array, "in in"]:
        """What moves the modes in one step."""
        size = self._rate * self.task.variances
        return jnp.diag(-2 * size * self._room) + size[:, None] * size[None, :] / self._batch

    @property
    def _drive(self) -> Float[Array, " in"]:
        return self._rate**2 * self.task.noise_scale**2 * self.task.variances / self._batch

    def _state_of(self, modes: Float[Array, " in"]) -> SquaredErrors:
        return SquaredErrors(modes, (self.task.variances @ modes + self.task.noise_scale**2) / 2)

    def _after(self, response, steps: Float[Array, ""]) -> SquaredErrors:
        """The state after so many steps; `response` says what a mode keeps of its start and gains by a constant drive."""
        finite = jnp.where(jnp.isinf(steps), 0.0, steps)
        sources = jnp.stack([self.initial, self._drive], axis=1)
        modes = apply_symmetric(response, self._matrix, sources, finite)
        # Several diverging modes may overflow with different signs; the fastest, which is positive, wins.
        modes = jnp.where(jnp.isnan(modes), jnp.inf, modes)
        modes = jnp.where(self.task.variances == 0, self.initial, modes)
        return self._state_of(jnp.where(jnp.isinf(steps), self.limit().modes, modes))


class OnePassRecursion(AbstractOnePass):
    """The mean over all examples after every step of one-pass SGD, exact in every dimension.

    Build it with `from_model`. Like a simulation, it knows whole steps only: `evaluate(t)` is the state after
    `round(t / rule.time_per_step)` of them. Gradients with respect to a covariance matrix need distinct eigenvalues.
    """

    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "OnePassRecursion":
        """The mean over examples for a linear model, its population and mini-batch SGD.

        **Arguments:**

        - `model`, `task`, `rule`: the case.
        - `check`: has no effect; any start, covariance and learning rate is covered.

        **Raises:**

        `ValueError` if the model is no `LinearModel` that fits the task, the task no `GaussianRegression`, or the rule
        no plain `tx.GradientDescent` with a `batch_size`.
        """
        del check
        return cls(*_case(cls.__name__, model, task, rule))

    def state(self, t: Float[Array, ""]) -> SquaredErrors:
        """The mean squared errors after the steps that fit into the time `t`."""
        dtype = self.initial.dtype
        return self._after(_discrete, jnp.rint(t.astype(dtype) / self.rule.time_per_step.astype(dtype)))

    def step(self, state: SquaredErrors) -> SquaredErrors:
        """The state after one step more: the recursion itself."""
        return self._state_of(state.modes + self._matrix @ state.modes + self._drive)

    def stability_threshold(self) -> Float[Array, ""]:
        r"""The learning rate $g$ at and above which the mean risk does not settle, for any covariance.

        It solves $\sum_i g\lambda_i/(1 - c\,g\lambda_i) = 2B$; for $d$ equal eigenvalues and $B = 1$ it is
        $2/(\lambda(d + 2))$.
        """
        total, largest = jnp.sum(self.task.variances), jnp.max(self.task.variances)
        low = 1 / (total / (2 * self._batch) + self._curvature * largest)
        high = jnp.minimum(2 * self._batch / total, 1 / (self._curvature * largest))
        tolerance = 4 * float(jnp.finfo(low.dtype).eps)
        found = optx.root_find(
            lambda rate, solution: solution._load(rate) - 1,
            optx.Bisection(tolerance, tolerance, flip=False),
            (low + high) / 2,
            args=self,
            options={"lower": low * (1 - 1e-3), "upper": high},
        )
        return found.value

    @property
    def _curvature(self) -> float:
        return (1 + 1 / self._batch) / 2


class OnePassLeastSquares(AbstractOnePass):
    """One-pass SGD in high dimension: the risk of a single run is a deterministic function of time.

    Build it with `from_model`. Gradients with respect to a covariance matrix need distinct eigenvalues.
    """

    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "OnePassLeastSquares":
        """The limit that a linear model, its population and mini-batch SGD belong to.

        **Arguments:**

        - `model`, `task`, `rule`: the case.
        - `check`: has no effect; any start, covariance and learning rate is covered.

        **Raises:**

        `ValueError` if the model is no `LinearModel` that fits the task, the task no `GaussianRegression`, or the rule
        no plain `tx.GradientDescent` with a `batch_size`.
        """
        del check
        return cls(*_case(cls.__name__, model, task, rule))

    def state(self, t: Float[Array, ""]) -> SquaredErrors:
        """The squared errors at time `t`."""
        dtype = self.initial.dtype
        return self._after(_continuous, t.astype(dtype) / self.rule.time_per_step.astype(dtype))

    def vector_field(self, t: Float[Array, ""], state: SquaredErrors) -> SquaredErrors:
        """The flow of the squared errors, and of the risk."""
        del t
        velocity = (self._matrix @ state.modes + self._drive) / self.rule.time_per_step.astype(self.initial.dtype)
        return SquaredErrors(velocity, self.task.variances @ velocity / 2)

    def stability_threshold(self) -> Float[Array, ""]:
        r"""The learning rate $g$ at and above which the risk does not settle, $2B/\mathrm{tr}\,K$."""
        return 2 * self._batch / jnp.sum(self.task.variances)

    @property
    def _curvature(self) -> float:
        return 0.0


def _continuous(rates: Array, steps: Array) -> Array:
    """A mode of $y' = my + f$ after a time: what it keeps of its start, and gains by a unit drive."""
    return jnp.stack([jnp.exp(rates * steps), steps * exprel(rates * steps)], axis=1)


def _discrete(rates: Array, steps: Array) -> Array:
    """A mode of $y\\leftarrow y + my + f$, which is positive definite, after a number of steps."""
    logs = jnp.log1p(rates)
    return jnp.stack([jnp.exp(logs * steps), steps * exprel(logs * steps) / exprel(logs)], axis=1)


def _case(
    theory: str, model: PyTree, task: PyTree, rule: PyTree
) -> tuple[Float[Array, " in"], GaussianRegression, GradientDescent]:
    """The squared errors at the start, and the case, if it is one that the theories cover."""
    if not isinstance(task, GaussianRegression):
        raise ValueError(f"`task` must be a GaussianRegression; got {type(task).__name__}.")
    descent = plain_descent(rule, theory, batches=True)
    if descent is None:
        raise ValueError(
            f"`rule` must be tx.GradientDescent with optax.sgd and a `batch_size` for {theory}, since every step sees "
            f"fresh examples; got {rule!r}."
        )
    weights = check_linear(model, task.teacher.shape[0]).astype(task.teacher.dtype)
    return task.to_modes(weights - task.teacher) ** 2, task, descent
