r"""Linear regression on a finite data set: the whole training run of a shallow network, for any data.

Set-up. Examples are the $P$ columns of $X$ ($N \times P$), targets $y$, one output $wx$, loss
$\tfrac12\sum_\mu(y_\mu - wx_\mu)^2$ (a sum over examples) with the penalty $\tfrac\gamma2\lVert w\rVert^2$ if the rule
has weight decay, gradient flow $\tau\dot w = (y - wX)X^\top - \gamma w$. With $X = U\,\mathrm{diag}(\sqrt l)\,Q^\top$
each component of $w$ along a column of $U$ relaxes at its own rate $(l + \gamma)/\tau$; what the data do not span stays
where it started (or decays).

No assumptions: any $X$, any targets, any initial weights.

Source: Advani and Saxe 2017, arXiv 1710.03667, who start from it; the solution itself is classical.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import AbstractRule, AbstractSolution, Assumption, Kind
from ..special import exprel
from ._base import check_flow
from ._network import DeepLinear
from ._teacher_regression import RegressionErrors, TeacherRegression


class RegressionState(eqx.Module):
    """A shallow network and how well it does.

    **Attributes:**

    - `weights`: $w$, shape `(in,)`.
    - `errors`: its training and generalisation error.
    """

    weights: Float[Array, " in"]
    errors: RegressionErrors


class LinearRegressionFlow(AbstractSolution[RegressionState]):
    r"""The exact training run of a shallow linear network with one output.

    Build it with `from_model`. Time is in the rule's units ($\tau$ is its `time_constant`), and the loss is a sum over
    examples. Gradients with respect to the inputs need distinct nonzero singular values (generic inputs have them).

    **Attributes:**

    - `initial`: $w(0)$, shape `(in,)`.
    - `eigenvalues`: $l$ of $XX^\top$, the largest `min(in, examples)`, falling; those below rounding are zero.
    - `directions`: their eigenvectors, the columns of $U$.
    - `drive`: $U^\top X y^\top$, what pulls each component.
    - `weight_decay`, `time_constant`: $\gamma$, $\tau$.
    """

    initial: Float[Array, " in"]
    eigenvalues: Float[Array, " modes"]
    directions: Float[Array, "in modes"]
    drive: Float[Array, " modes"]
    weight_decay: Float[Array, ""]
    time_constant: Float[Array, ""]
    task: TeacherRegression
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: DeepLinear, task: TeacherRegression, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "LinearRegressionFlow":
        """The solution for a network of one layer and a data set.

        **Raises:**

        `ValueError` if the network has more than one layer or does not fit the task, or the rule is not gradient flow.
        """
        del check
        initial, rule = check_shallow(model, task), check_flow(rule, cls.__name__)
        u, singular_values, vt = jnp.linalg.svd(task.inputs, full_matrices=False)
        # A singular value of rounding size would move its component, in the end by noise divided by rounding.
        floor = max(task.inputs.shape) * jnp.finfo(initial.dtype).eps * singular_values[0]
        singular_values = jnp.where(singular_values > floor, singular_values, 0.0)
        return cls(
            initial,
            singular_values**2,
            u,
            singular_values * (vt @ task.targets),
            rule.weight_decay.astype(initial.dtype),
            rule.time_constant.astype(initial.dtype),
            task,
        )

    @classmethod
    def assumptions(
        cls, model: DeepLinear, task: TeacherRegression, rule: AbstractRule | None = None
    ) -> tuple[Assumption, ...]:
        """None: the solution holds for any data and any start."""
        check_shallow(model, task)
        check_flow(rule, cls.__name__)
        return ()

    def state(self, t: Float[Array, ""]) -> RegressionState:
        """Weights and errors at time `t`."""
        t = t.astype(self.initial.dtype) / self.time_constant
        kept, gained = relaxation(self.eigenvalues, self.weight_decay, t)
        kept_outside, _ = relaxation(jnp.zeros_like(self.weight_decay), self.weight_decay, t)
        along = self.initial @ self.directions
        outside = self.initial - self.directions @ along
        return self._state_of(kept_outside * outside + self.directions @ (kept * along + gained * self.drive))

    def limit(self) -> RegressionState:
        """The weights as t → ∞: the least-squares (with decay: ridge) solution nearest to where training started."""
        return self.state(jnp.asarray(jnp.inf, self.initial.dtype))

    def vector_field(self, t: Float[Array, ""], state: RegressionState) -> RegressionState:
        """The flow of the weights, and of the errors that follow from them."""
        del t
        pull = (self.task.targets - state.weights @ self.task.inputs) @ self.task.inputs.T
        velocity = (pull - self.weight_decay * state.weights) / self.time_constant
        return jax.jvp(self._state_of, (state.weights,), (velocity,))[1]

    def reduce(self, model: DeepLinear) -> RegressionState:
        """The weights and errors of a network."""
        return self._state_of(self.task.weights_of(model))

    def _state_of(self, weights: Float[Array, " in"]) -> RegressionState:
        errors = RegressionErrors(self.task.train_error(weights), self.task.generalisation_error(weights))
        return RegressionState(weights, errors)


def relaxation(rates: Float[Array, "*modes"], decay: Float[Array, ""], t: ArrayLike) -> tuple[Array, Array]:
    r"""$e^{-rt}$ and $(1 - e^{-rt})/r$ at $r = l + \gamma$, for any `t` up to infinity.

    A mode with $r = 0$ does not move: nothing pulls it, so the second number, $t$, is of no use and returned as zero.
    """
    r = rates + decay
    moves = r > 0
    # After 800 time constants nothing changes any more in either precision, and products stay finite.
    t = jnp.where(moves, jnp.minimum(t, 800 / jnp.where(moves, r, 1.0)), 0.0)
    return jnp.exp(-r * t), t * exprel(-r * t)


def check_shallow(model: Any, task: Any) -> Float[Array, " in"]:
    """The weights of `model`, if it is a one-layer network with one output that fits the task."""
    if not isinstance(task, TeacherRegression):
        raise ValueError(f"`task` must be a TeacherRegression; got {type(task).__name__}.")
    if not isinstance(model, DeepLinear):
        raise ValueError(f"`model` must be a DeepLinear network; got {type(model).__name__}.")
    if model.depth != 1:
        raise ValueError(f"`model` must have 1 layer of weights; got {model.depth}.")
    return task.weights_of(model).astype(task.inputs.dtype)
