"""The diffusion that stochastic gradient descent resembles at small learning rates."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractFiniteTask, AbstractParameterFlow, Objective, check_count, check_positive
from ..descent._gradient_flow import GradientFlow
from ._brownian_motion import brownian_motion


class SGDFlow(AbstractParameterFlow):
    r"""$d\theta = -\nabla L\,dt + \sqrt{\eta/(Bn)}\,\sum_i(\nabla\ell_i - \nabla L)\,dW_i$, in the sense of Ito.

    The losses $\ell_i$ of the $n$ examples have the mean $L$. The noise has the covariance of mini-batch gradients at
    every $\theta$, but is normal: one Brownian motion for each example, and one backward pass through all of them.
    Averages differ by $O(\eta)$ from those of `tx.GradientDescent(learning_rate, batch_size=B)` at the times
    $t = \eta k$.

    `tx.train` needs a `key`, a task that is a `tx.AbstractFiniteTask`, and Euler's method, since the noise depends on
    the state: `solver=diffrax.Euler(), dt0=0.01, stepsize_controller=diffrax.ConstantStepSize()`.

    **Arguments:**

    - `learning_rate`: $\eta > 0$; may be an array under `vmap`.
    - `examples`: $n$, how many the task has.
    - `batch_size`: $B$, examples drawn with replacement.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$ added to $L$.

    **Raises:**

    `ValueError` for a learning rate that is not positive, no examples, a batch that is
    empty or larger than they are, or a negative weight decay.
    """

    learning_rate: Float[Array, ""]
    examples: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    drift: GradientFlow

    def __init__(
        self, learning_rate: ArrayLike, examples: PyTree, batch_size: PyTree = 1, *, weight_decay: ArrayLike = 0.0
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.examples = check_count("examples", examples)
        self.batch_size = check_count("batch_size", batch_size)
        if self.batch_size > self.examples:
            raise ValueError(f"`batch_size` must be at most {self.examples}, the `examples`; got {self.batch_size}.")
        self.drift = GradientFlow(weight_decay=weight_decay)

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The mean velocity of the parameters."""
        return self.drift.vector_field(t, params, objective)

    def diffusion(self, t: Any, params: PyTree, objective: Objective) -> lx.FunctionLinearOperator:
        """From the increments of all Brownian motions to those of the parameters."""
        del t
        task = objective.task
        if not isinstance(task, AbstractFiniteTask) or task.examples != self.examples:
            have = f"{task.examples} examples" if isinstance(task, AbstractFiniteTask) else type(task).__name__
            raise ValueError(
                f"`task` must be a tx.AbstractFiniteTask of {self.examples} examples, as `rule` says; got {have}."
            )
        losses, backward = jax.vjp(lambda params: task.example_losses(objective.model(params)), params)
        strength = jnp.sqrt(self.learning_rate / (self.batch_size * self.examples)).astype(losses.dtype)

        def push(increments: Array) -> PyTree:
            return backward(strength * (increments - jnp.mean(increments)).astype(losses.dtype))[0]

        return lx.FunctionLinearOperator(push, jax.eval_shape(self._motions, params))

    def terms(self, state: PyTree, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.MultiTerm:
        """The drift, and a term driven by Brownian motion."""
        noise = diffrax.ControlTerm(self.diffusion, brownian_motion(self._motions(state), t0, t1, key))
        return diffrax.MultiTerm(diffrax.ODETerm(self.vector_field), noise)

    def _motions(self, params: PyTree) -> Array:
        """A number for each Brownian motion, in the precision of the parameters, which that of the losses may exceed."""
        return jnp.zeros(self.examples, jnp.result_type(*jax.tree.leaves(params)))
