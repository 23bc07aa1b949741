r"""What trained softmax heads do in context: one step of gradient descent on centred inputs, and what else there is.

Set-up. Prompts of `InContextRegression` with any covariances. One preconditioned step of gradient descent from zero on
the squared error of the prompt answers

$$\hat y = \frac1L\sum_ly_l\,x_l^\top A\,x_q,\qquad\text{debiased:}\qquad
\hat y = \frac1L\sum_ly_l\,(x_l - \bar x)^\top A\,x_q,$$

$A = \eta I$ for a plain step. Two softmax heads $\pm\omega$ of opposite $\pm\mu$ give the second as $\omega\to0$ at fixed
$2\mu\omega = \eta$.

Theory. Centring costs one example: the debiased step on $L$ examples is a plain one on $L - 1$ with $\tfrac{L - 1}LA$.
Its risk is therefore known for every $A$; the best one is, with $n = L - 1$ and tasks $w\sim\mathcal N(0, \rho I)$,

$$A = L\,\big[(n + 1)\Lambda + (\operatorname{tr}\Lambda + \sigma^2/\rho)I\big]^{-1}.$$

The best that any algorithm can do is ridge regression with the true ratio of noise to signal. For isotropic inputs and
$d, L\to\infty$ at $\xi = d/L$ its risk is $Psm$ with $s = \xi\sigma^2/P$ and the resolvent $m$ of the Marchenko-Pastur
law, $\xi s\,m^2 + (1 - \xi + s)\,m = 1$.

Source: He, Pan, Chen and Yang 2025, arXiv 2503.12734.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import check_matrix
from ._in_context_regression import InContextRegression
from ._softmax_heads_task import check_isotropic


class DebiasedDescent(eqx.Module):
    """One step of gradient descent on centred inputs: a network that answers prompts, and its exact risk.

    **Arguments:**

    - `map`: $A$, shape `(inputs, inputs)`; the learning rate times the identity for a plain step.

    **Raises:**

    `ValueError` for a matrix that is not square or not finite.
    """

    map: Float[Array, "inputs inputs"]

    def __init__(self, map: ArrayLike):
        self.map = check_matrix("map", map)
        if self.map.shape[0] != self.map.shape[1]:
            raise ValueError(f"`map` must be square; got shape {self.map.shape}.")

    @classmethod
    def best(cls, task: Any) -> "DebiasedDescent":
        """The step with the least risk on prompts of two examples or more."""
        shorter, share = _centred(task)
        return cls(shorter.optimum / share)

    @classmethod
    def best_step(cls, task: Any) -> "DebiasedDescent":
        """The best step without a preconditioner, $A = \\eta I$."""
        shorter, share = _centred(task)
        unit = jnp.eye(shorter.inputs, dtype=shorter.covariance.dtype)
        # The risk is a parabola in η.
        curvature = jnp.sum(unit * (shorter.gradient_of_map(unit) + shorter.drive))
        return cls(jnp.trace(shorter.drive) / curvature / share * unit)

    def __call__(self, prompt: Float[Array, "inputs_and_label tokens"]) -> Float[Array, ""]:
        """The prediction for one prompt: columns are $(x_l, y_l)$, the last one $(x_q, 0)$."""
        examples = prompt[:-1, :-1]
        centred = examples - jnp.mean(examples, axis=1)[:, None]
        return (centred @ prompt[-1, :-1]) @ self.map @ prompt[:-1, -1] / examples.shape[1]

    def risk(self, task: Any) -> Float[Array, ""]:
        """The mean squared error (no ½), exact; the label of the query has no noise."""
        shorter, share = _centred(task)
        if self.map.shape[0] != shorter.inputs:
            raise ValueError(f"`task` must have {self.map.shape[0]} inputs, as `map` has; got {shorter.inputs}.")
        return shorter.risk_of_map(share * self.map)


def ridge_risk(task: Any) -> Float[Array, ""]:
    """The least risk (no ½) of any algorithm on isotropic prompts, for many inputs and as many examples.

    **Arguments:**

    - `task`: an isotropic `InContextRegression`; only its ratio of inputs to examples counts, and its noise.

    **Raises:**

    `ValueError` for another task, or covariances that are not isotropic.
    """
    task = check_isotropic(task)
    power = task.inputs * task.covariance[0, 0] * task.task_covariance[0, 0]
    ratio = task.inputs / task.length
    noise = ratio * task.noise_variance / power
    b = 1 - ratio + noise
    root = jnp.sqrt(b**2 + 4 * ratio * noise)
    # s m, in two forms of which one does not cancel.
    kept = jnp.where(b > 0, 2 * noise / jnp.where(b > 0, b + root, 1.0), (root - b) / (2 * ratio))
    return power * kept


def _centred(task: Any) -> tuple[InContextRegression, float]:
    """The task that the debiased step solves like a plain one, and the share of A that is left in it."""
    if not isinstance(task, InContextRegression):
        raise ValueError(f"`task` must be an InContextRegression; got {type(task).__name__}.")
    if not isinstance(task.length, int):
        return task, 1.0
    if task.length < 2:
        raise ValueError("`task` must have prompts of at least two examples: one alone, centred, says nothing.")
    shorter = InContextRegression(
        task.covariance,
        task.length - 1,
        task_covariance=task.task_covariance,
        query_covariance=task.query_covariance,
        noise_variance=task.noise_variance,
    )
    return shorter, (task.length - 1) / task.length
