r"""Rectifier units that are active on all positive or on all negative examples: training in closed form.

Set-up. As in `OrthogonalReLUFlow`, with a group of parallel units for each sign of the targets. A unit of the group $\pm$
has $\pm a_j = \lVert w_j\rVert$ (balanced), lies in the span of the examples $S_\pm$ with $\pm y_k > 0$, and is active on
all of them, $w_j\cdot x_k > 0$. Squared norms of the inputs are equal within each group, $c_\pm$.

Theory. Parallel units act as one and keep their shares. The groups never interact: with $\tau_\pm = c_\pm t/(n\tau)$ each
obeys

$$\frac{dw}{d\tau_\pm} = a(\beta_\pm - aw),\qquad\frac{da}{d\tau_\pm} = w\cdot(\beta_\pm - aw),\qquad
\beta_\pm = \pm\sum_{k\in S_\pm}y_kx_k/c_\pm,$$

which `tractax.special.balanced_bernoulli` solves. A group along $\beta_\pm$ has a logistic mass $S_\pm = \sum_ja_j^2$,
which reaches half of its limit $s_\pm = \lVert\beta_\pm\rVert$ at $\frac{n\tau}{2c_\pm s_\pm}\ln(s_\pm/S_\pm(0) - 1)$.

Source: Boursier, Pillaud-Vivien and Flammarion 2022, arXiv 2206.00939, for the setting; the closed form is derived here.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, AbstractSolution, Assumption, Kind, enforce, tolerance_for
from ..deep_linear import RegressionTask
from ..rules import GradientFlow, no_weight_decay
from ..special import balanced_bernoulli
from ._base import Layers, check_single_output, orthogonal_inputs, sign_groups, targets_of
from ._network import TwoLayerNetwork


class PatternFixedReLU(AbstractSolution[Layers]):
    """Training of two groups of rectifier units that keep their patterns of activity, in closed form.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`). Index 0 is the group of the
    positive targets, 1 that of the negative ones.

    **Attributes:**

    - `starts`: the weights of each group as one unit, shape `(2, in)`.
    - `targets`: $\\beta_\\pm$, shape `(2, in)`.
    - `rates`: $c_\\pm/(n\\tau)$, shape `(2,)`.
    - `shares`: how units make up the groups, with the sign of the readout, shape `(hidden, 2)`; the squares of a column
      add up to one.
    - `task`, `rule`: the case.
    """

    starts: Float[Array, "2 in"]
    targets: Float[Array, "2 in"]
    rates: Float[Array, "2"]
    shares: Float[Array, "hidden 2"]
    task: RegressionTask
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "PatternFixedReLU":
        """The solution for a network, having checked that its units form such groups.

        **Raises:**

        `ValueError` for another kind of network, task or rule, or if an assumption is violated: orthogonal inputs, equal
        norms, balanced and parallel units in the right span, active where they should be, a group for every sign of the
        targets, no weight decay.
        """
        solution = cls._build(model, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        solution = cls._build(model, task, rule)
        groups, squares = sign_groups(task), jnp.sum(task.inputs**2, axis=1)
        tolerance = tolerance_for(squares)
        size = jnp.abs(model.second[0])
        lengths = jnp.linalg.norm(model.first, axis=1)
        imbalance = jnp.max(jnp.abs(lengths - size) / jnp.where(size == 0, 1.0, size))
        state = solution.state(jnp.zeros((), squares.dtype))
        crooked = jnp.linalg.norm(model.first - state.first, axis=1) / jnp.where(size == 0, 1.0, size)
        # In units of their lengths, what the groups have along their own examples, and all of it.
        norms = jnp.sqrt(jnp.where(squares == 0, 1.0, squares))
        long = jnp.linalg.norm(solution.starts, axis=1)
        along = solution.starts @ task.inputs.T / (jnp.where(long == 0, 1.0, long)[:, None] * norms[None, :])
        inside = jnp.where(groups, along / norms[None, :], 0.0) @ task.inputs
        outside = jnp.max(jnp.linalg.norm(solution.starts / jnp.where(long == 0, 1.0, long)[:, None] - inside, axis=1))
        inactive = jnp.any(groups & (along <= 0) & (long > 0)[:, None])
        missing = jnp.any(jnp.any(groups, axis=1) & (long == 0))
        spread = jnp.max(jnp.where(groups, jnp.abs(squares[None, :] / _mean_square(groups, squares)[:, None] - 1), 0.0))
        return (
            orthogonal_inputs(task),
            Assumption("inputs of equal norm for targets of one sign", spread, tolerance),
            Assumption("balanced units, |a_j| = ‖w_j‖", imbalance, tolerance),
            Assumption("parallel units for each sign of the readout", jnp.max(crooked), tolerance),
            Assumption("units in the span of the examples of their sign", outside, tolerance),
            Assumption("units active on all examples of their sign", jnp.where(inactive, 1.0, 0.0), 0.0),
            Assumption("units for every sign of the targets", jnp.where(missing, 1.0, 0.0), 0.0),
            no_weight_decay(solution.rule),
        )

    @classmethod
    def _build(cls, model: Any, task: Any, rule: AbstractRule | None) -> "PatternFixedReLU":
        model, task, rule = check_single_output(cls.__name__, model, task, rule)
        groups, squares = sign_groups(task), jnp.sum(task.inputs**2, axis=1)
        c = _mean_square(groups, squares)
        size = jnp.maximum(jnp.array([1.0, -1.0], c.dtype)[None, :] * model.second[0][:, None], 0.0)
        mass = jnp.sqrt(jnp.sum(size**2, axis=0))
        shares = size / jnp.where(mass == 0, 1.0, mass)[None, :]
        targets = jnp.where(groups, jnp.abs(targets_of(task)[:, 0])[None, :], 0.0) @ task.inputs / c[:, None]
        rates = c / (squares.shape[0] * rule.time_constant.astype(c.dtype))
        signed = shares * jnp.array([1.0, -1.0], c.dtype)[None, :]
        return cls(shares.T @ model.first, targets, rates, signed, task, rule)

    @property
    def strengths(self) -> Float[Array, "2"]:
        r"""$s_\pm = \lVert\beta_\pm\rVert$, the limits of the masses."""
        return jnp.linalg.norm(self.targets, axis=1)

    @property
    def half_times(self) -> Float[Array, "2"]:
        """When the mass of each group reaches half its limit; NaN for a group that does not start along its target.

        Negative for a group that starts beyond; infinite where there is nothing to learn, or no unit to learn it.
        """
        s, length = self.strengths, jnp.linalg.norm(self.starts, axis=1)
        cosine = jnp.sum(self.starts * self.targets, axis=1) / jnp.where(s * length == 0, 1.0, s * length)
        never = (s == 0) | (length == 0)
        mass = jnp.where(never, 1.0, length**2)
        times = jnp.log(jnp.where(never, 1.0, s) / mass - 1) / (2 * self.rates * jnp.where(never, 1.0, s))
        aligned = 1 - cosine < tolerance_for(s)
        return jnp.where(never, jnp.inf, jnp.where(aligned, times, jnp.nan))

    def state(self, t: Float[Array, ""]) -> Layers:
        """The weights at time `t`."""
        times = self.rates * t.astype(self.rates.dtype)
        first, readout = jax.vmap(balanced_bernoulli)(times, self.starts, self.targets)
        return Layers(jnp.abs(self.shares) @ first, (self.shares @ readout)[None, :])

    def limit(self) -> Layers:
        """The weights as t → ∞: each group of weight $s_\\pm$ along its target, the interpolation of least norm."""
        return self.state(jnp.asarray(jnp.inf, self.rates.dtype))

    def vector_field(self, t: Any, state: Layers) -> Layers:
        """The gradient flow of the weights."""
        del t
        inputs, y = self.task.inputs, targets_of(self.task)[:, 0]
        a = state.second[0]
        # Whether a unit is active is fixed; rounding must not decide on examples of the other sign.
        active = jnp.abs(self.shares) @ sign_groups(self.task).astype(a.dtype) > 0
        hidden = jnp.where(active, state.first @ inputs.T, 0.0)
        pull = (y - a @ hidden) / (y.shape[0] * self.rule.time_constant.astype(a.dtype))
        first = a[:, None] * (jnp.where(active, pull[None, :], 0.0) @ inputs)
        return Layers(first, (hidden @ pull)[None, :])

    def reduce(self, model: TwoLayerNetwork) -> Layers:
        """The weights of a network."""
        return Layers(model.first, model.second)

    def masses(self, t: ArrayLike) -> Float[Array, "2"]:
        r"""$S_\pm = \sum_ja_j^2$ of both groups at one time."""
        square = self.evaluate(t).second[0] ** 2
        return jnp.where(self.shares != 0, square[:, None], 0.0).sum(axis=0)

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time."""
        state = self.evaluate(t)
        return self.task.loss(TwoLayerNetwork(state.first, state.second))


def _mean_square(groups: Array, squares: Array) -> Float[Array, "2"]:
    """The mean squared norm of the inputs of each sign, and one where there are none."""
    count = jnp.sum(groups, axis=1)
    total = jnp.sum(jnp.where(groups, squares[None, :], 0.0), axis=1)
    return jnp.where(count > 0, total / jnp.maximum(count, 1).astype(total.dtype), 1.0)
