r"""Least squares on a finite sample: the whole training run of a linear model, for any data.

Set-up. Examples are the $n$ rows of $X$, labels $y$; loss $\tfrac1{2n}\lVert Xw - y\rVert^2$, a mean over examples;
gradient flow $\tau\dot w = -\nabla L$, or gradient descent with learning rate $\eta$. With
$X^\top X/n = V\,\mathrm{diag}(l)\,V^\top$,

$$w(t) = w(0) + V\varphi_t(l)V^\top X^\top(y - Xw(0))/n,\qquad \varphi_t(l) = \frac{1 - e^{-lt/\tau}}l
\ \text{ or }\ \frac{1 - (1 - \eta l)^k}l .$$

No assumptions on the data. The population they come from, $x\sim\mathcal N(0, \Sigma)$ and
$y = x\cdot w^* + \sigma\zeta$, only says how well the model does on fresh examples.

Source: Pezeshki et al. 2021, arXiv 2112.03215, who start from it; the solution itself is classical.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind, enforce
from ..rules import GradientDescent, GradientFlow, plain_descent, refuse_decay
from ..special import decay_integral, geometric
from ._gaussian_regression import RegressionSample
from ._linear_model import LinearModel, check_linear


class RegressionOverlaps(eqx.Module):
    r"""How a linear model is placed in its population, and how well it does.

    **Attributes:**

    - `student`: $Q = w^\top\Sigma w$.
    - `cross`: $R = w^{*\top}\Sigma w$.
    - `train`: the loss, $\tfrac1{2n}\lVert Xw - y\rVert^2$.
    - `excess`: the excess risk $\tfrac12(Q - 2R + w^{*\top}\Sigma w^*)$; half the mean squared error on fresh examples
      with noisy labels is larger by $\sigma^2/2$.
    """

    student: Float[Array, "*times"]
    cross: Float[Array, "*times"]
    train: Float[Array, "*times"]
    excess: Float[Array, "*times"]


class LeastSquaresPath(AbstractSolution[RegressionOverlaps]):
    r"""The exact training run of a linear model on a sample.

    Build it with `from_model`. Time is in the rule's units; of gradient descent it knows whole steps only, as a
    simulation does: `evaluate(t)` is the state after `round(t / rule.time_per_step)` of them. Gradients with respect to
    the inputs need distinct nonzero singular values (generic inputs have them).

    **Attributes:**

    - `initial`: $w(0)$, shape `(in,)`.
    - `eigenvalues`: $l$ of $X^\top X/n$, the largest `min(in, examples)`, falling; those below rounding are zero.
    - `directions`: their eigenvectors, the columns of $V$.
    - `drive`: $V^\top X^\top(y - Xw(0))/n$, what pulls each component.
    - `task`, `rule`: the case.
    """

    initial: Float[Array, " in"]
    eigenvalues: Float[Array, " modes"]
    directions: Float[Array, "in modes"]
    drive: Float[Array, " modes"]
    task: RegressionSample
    rule: GradientFlow | GradientDescent
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "LeastSquaresPath":
        """The solution for a linear model and a sample.

        **Arguments:**

        - `model`, `task`: a `LinearModel` and a `RegressionSample`.
        - `rule`: `tx.GradientFlow` without weight decay (the default), or `tx.GradientDescent` on the full loss.
        - `check`: whether to refuse steps that are too large to be stable.

        **Raises:**

        `ValueError` for another kind of model, task or rule, and for what `check` refuses.
        """
        initial, task, rule = check_least_squares(cls.__name__, model, task, rule)
        u, singular_values, vt = jnp.linalg.svd(task.inputs, full_matrices=False)
        # A singular value of rounding size would move its component, in the end by noise divided by rounding.
        floor = max(task.inputs.shape) * jnp.finfo(initial.dtype).eps * singular_values[0]
        singular_values = jnp.where(singular_values > floor, singular_values, 0.0)
        examples = task.inputs.shape[0]
        drive = singular_values * (u.T @ (task.labels - task.inputs @ initial)) / examples
        solution = cls(initial, singular_values**2 / examples, vt.T, drive, task, rule)
        return enforce(solution, cls.__name__, solution._measured()) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """Steps must be stable; any data and any start are covered."""
        return cls.from_model(model, task, rule, check=False)._measured()

    def weights(self, t: ArrayLike) -> Float[Array, " in"]:
        """The weights at one time, possibly infinite."""
        t = jnp.asarray(t, self.initial.dtype)
        learned = self.eigenvalues > 0
        l = jnp.where(learned, self.eigenvalues, 1.0)
        if isinstance(self.rule, GradientFlow):
            time = decay_integral(l, t / self.rule.time_constant.astype(t.dtype))
        else:
            steps = jnp.rint(t / self.rule.time_per_step.astype(t.dtype))
            rate = self.rule.learning_rate.astype(t.dtype)
            time = rate * geometric(rate * l, steps)[1]
        return self.initial + self.directions @ jnp.where(learned, time * self.drive, 0.0)

    def state(self, t: Float[Array, ""]) -> RegressionOverlaps:
        """The state at time `t`."""
        return overlaps_of(self.task, self.weights(t))

    def limit(self) -> RegressionOverlaps:
        """The state as t → ∞: of the least-squares solution nearest to where training started."""
        return self.state(jnp.asarray(jnp.inf, self.initial.dtype))

    def reduce(self, model: LinearModel) -> RegressionOverlaps:
        """The state of a model."""
        return overlaps_of(self.task, check_linear(model, self.initial.shape[0]).astype(self.initial.dtype))

    def _measured(self) -> tuple[Assumption, ...]:
        if isinstance(self.rule, GradientFlow):
            return ()
        ratio = self.rule.learning_rate.astype(self.initial.dtype) * self.eigenvalues[0] / 2
        return (Assumption("stable steps, η l < 2", jnp.maximum(ratio - 1, 0.0), 0.0),)


def overlaps_of(task: RegressionSample, weights: Float[Array, " in"]) -> RegressionOverlaps:
    """The state of a linear model with these weights."""
    variances, to_modes = task.population.variances, task.population.to_modes
    own, teacher = to_modes(weights), to_modes(task.population.teacher)
    return RegressionOverlaps(
        variances @ own**2,
        variances @ (own * teacher),
        jnp.mean((task.inputs @ weights - task.labels) ** 2) / 2,
        variances @ (own - teacher) ** 2 / 2,
    )


def check_least_squares(
    theory: str, model: PyTree, task: PyTree, rule: PyTree
) -> tuple[Float[Array, " in"], RegressionSample, GradientFlow | GradientDescent]:
    """The initial weights, task and rule, if they are a linear model, a sample, and flow or descent on the full loss."""
    if not isinstance(task, RegressionSample):
        raise ValueError(f"`task` must be a RegressionSample; got {type(task).__name__}.")
    initial = check_linear(model, task.inputs.shape[1]).astype(task.inputs.dtype)
    return initial, task, check_rule(theory, rule)


def check_rule(theory: str, rule: PyTree) -> GradientFlow | GradientDescent:
    """The rule, if it is flow or descent on the full loss."""
    rule = GradientFlow() if rule is None else rule
    if isinstance(rule, GradientFlow) and rule.rates is None:
        return refuse_decay(rule, theory)
    descent = plain_descent(rule, theory, batches=False)
    if descent is not None:
        return descent
    raise ValueError(
        f"`rule` must be tx.GradientFlow without rates, or tx.GradientDescent with optax.sgd on the full loss, for "
        f"{theory}; got {rule!r}."
    )
