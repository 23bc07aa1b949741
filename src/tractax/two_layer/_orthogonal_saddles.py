r"""Rectifier networks on orthogonal inputs from small weights: one sign of the targets after the other.

Set-up. As in `OrthogonalReLUFlow`, with inputs of equal squared norm $c$ and small balanced weights, $w_j = \lambda
g_j/\sqrt m$, $a_j = \pm\lVert w_j\rVert$.

Theory. While all weights are small, units of sign $\pm$ that are active on all of $S_\pm = \{k: \pm y_k>0\}$ turn
towards $\beta_\pm = \pm\sum_{S_\pm}y_kx_k/c$ and grow like $e^{D_\pm t/\tau}$, with $D_\pm = cs_\pm/n$ and
$s_\pm = \lVert\beta_\pm\rVert$. The sign with the larger $D$ is fitted first, each at the time

$$t_\pm \approx \frac\tau{2D_\pm}\ln\frac{s_\pm}{S_\pm},\qquad
S_\pm = \tfrac14\sum_j\big(|a_j| + w_j\cdot\hat\beta_\pm\big)^2\quad\text{over these units},$$

which is $\ln(1/\lambda)\,\tau/D_\pm$ to leading order. The loss stops at $\tfrac1{2n}\sum_ky_k^2$, then at the share of
the slower sign, and falls to zero, where the network is the interpolation of least norm, $\lVert\theta\rVert^2 =
2(s_+ + s_-)$. The times are off by a constant as $\lambda\to0$, since $S_\pm$ leaves out the early pull of examples of
the other sign; the norm is off by small powers of $\lambda$.

Source: Boursier, Pillaud-Vivien and Flammarion 2022, arXiv 2206.00939.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, check_positive, enforce, require, tolerance_for
from ..deep_linear import RegressionTask
from ..rules import GradientFlow, check_flow, no_weight_decay
from ._base import check_single_output, orthogonal_inputs, sign_groups, targets_of


class OrthogonalSaddles(eqx.Module):
    """The saddles that a rectifier network passes on orthogonal inputs, from small weights.

    Build it with `from_task`. Index 0 is the group of the positive targets, 1 that of the negative ones.

    **Attributes:**

    - `directions`: $\\hat\\beta_\\pm$, unit vectors, shape `(2, in)`.
    - `strengths`: $s_\\pm$, shape `(2,)`.
    - `rates`: $D_\\pm/\\tau$, shape `(2,)`.
    - `task`, `rule`: the case.
    """

    directions: Float[Array, "2 in"]
    strengths: Float[Array, "2"]
    rates: Float[Array, "2"]
    task: RegressionTask
    rule: GradientFlow

    @classmethod
    def from_task(cls, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True) -> "OrthogonalSaddles":
        """The saddles of a task.

        **Raises:**

        `ValueError` for another kind of task or rule, targets of more than one output, inputs that are not orthogonal or
        of different norms, or weight decay.
        """
        if not isinstance(task, RegressionTask) or targets_of(task).shape[1] != 1:
            raise ValueError(f"`task` must be a RegressionTask with one output; got {task!r}.")
        rule = check_flow(rule, cls.__name__)
        squares, y = jnp.sum(task.inputs**2, axis=1), targets_of(task)[:, 0]
        c = jnp.mean(squares)
        spread = jnp.max(jnp.abs(squares / c - 1))
        message = f"`task` must have inputs of equal norm for {cls.__name__}; their squares differ by {spread}, relative."
        if check:
            squares = enforce(squares, cls.__name__, (orthogonal_inputs(task), no_weight_decay(rule)))
            c = require(c, spread <= tolerance_for(squares), message)
        targets = jnp.where(sign_groups(task), jnp.abs(y)[None, :], 0.0) @ task.inputs / c
        strengths = jnp.linalg.norm(targets, axis=1)
        directions = targets / jnp.where(strengths == 0, 1.0, strengths)[:, None]
        rates = c * strengths / (y.shape[0] * rule.time_constant.astype(c.dtype))
        return cls(directions, strengths, rates, task, rule)

    @property
    def plateau_losses(self) -> Float[Array, "3"]:
        """The losses of the saddle at zero, of the one where the faster sign is fitted, and of the end, which is zero."""
        y = targets_of(self.task)[:, 0]
        shares = jnp.sum(jnp.where(sign_groups(self.task), y[None, :] ** 2, 0.0), axis=1) / (2 * y.shape[0])
        slower = jnp.where(self.rates[0] < self.rates[1], shares[0], shares[1])
        return jnp.stack([jnp.sum(shares), slower, jnp.zeros_like(slower)])

    @property
    def least_norm(self) -> Float[Array, ""]:
        r"""$2(s_+ + s_-)$, the squared norm of all weights at the end."""
        return 2 * jnp.sum(self.strengths)

    def masses(self, model: PyTree) -> Float[Array, "2"]:
        r"""$S_\pm$, what there is of each growing group in a network of small weights.

        **Raises:**

        `ValueError` if no unit is active on all examples of a sign: that sign is never fitted.
        """
        model, task, _ = check_single_output("OrthogonalSaddles", model, self.task, self.rule)
        groups, a = sign_groups(task), model.second[0]
        active = model.first @ task.inputs.T > 0
        of_sign = jnp.stack([a > 0, a < 0]) & jnp.all(active[None] | ~groups[:, None, :], axis=2)
        amplitude = (jnp.abs(a)[None, :] + self.directions @ model.first.T) / 2
        masses = jnp.sum(jnp.where(of_sign, amplitude**2, 0.0), axis=1)
        fitted = jnp.all((masses > 0) | (self.strengths == 0))
        return require(
            masses,
            fitted,
            "`model` must have, for every sign of the targets, a unit with a readout of this sign that is active on all "
            f"examples of it, or that sign is never fitted; the groups have masses {masses}.",
        )

    def times(self, model: PyTree) -> Float[Array, "2"]:
        """$t_\\pm$, when each sign is fitted by a network that starts from small weights; infinite without targets of it.

        **Raises:**

        `ValueError` as `masses` does.
        """
        nothing = self.strengths == 0
        masses = jnp.where(nothing, 1.0, self.masses(model))
        strengths, rates = (jnp.where(nothing, 1.0, x) for x in (self.strengths, self.rates))
        return jnp.where(nothing, jnp.inf, jnp.log(strengths / masses) / (2 * rates))

    def leading_times(self, scale: ArrayLike) -> Float[Array, "2"]:
        r"""$\ln(1/\lambda)\,\tau/D_\pm$, the leading order of the times for the scale $\lambda$ of the weights."""
        scale = check_positive("scale", scale, scalar=True).astype(self.rates.dtype)
        nothing = self.rates == 0
        return jnp.where(nothing, jnp.inf, -jnp.log(scale) / jnp.where(nothing, 1.0, self.rates))
