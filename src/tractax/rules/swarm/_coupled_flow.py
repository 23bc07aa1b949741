"""Many learners on the same task, coupled to each other and shaken by noise."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractFlowRule, Objective, check_matrix, check_positive, require
from ..descent._weight_decay import check_decay
from ..noise._brownian_motion import white_noise


class CoupledFlow(AbstractFlowRule[PyTree]):
    r"""$d\theta_i = -\nabla L(\theta_i)\,dt - \kappa\sum_j\Lambda_{ij}\theta_j\,dt + \sigma\,dW_i$.

    Learners $i = 1\dots n$ form a population: a network in which every trainable array has a leading axis of $n$, as
    `jax.vmap` over its constructor makes it. Read it with `jax.vmap`, for instance `observe=jax.vmap(task.loss)`.

    With noise this is a stochastic differential equation: `tx.train` needs a `key`, and a solver of fixed steps
    (`solver=diffrax.Heun(), dt0=0.01, stepsize_controller=diffrax.ConstantStepSize()`).

    **Arguments:**

    - `laplacian`: $\Lambda$, symmetric with rows that sum to zero, shape `(n, n)`; see
      `tx.teacher_student.graph_laplacian`.
    - `coupling`: $\kappa \ge 0$.
    - `noise_scale`: $\sigma \ge 0$, of independent white noise on every number of every learner; `None` for none, and
      then an ordinary differential equation.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of every learner's penalty $\tfrac\gamma2\lVert\theta_i\rVert^2$.

    **Raises:**

    `ValueError` for a matrix that is no Laplacian, a negative coupling, noise or decay.
    """

    laplacian: Float[Array, "learners learners"]
    coupling: Float[Array, ""]
    noise_scale: Float[Array, ""] | None
    weight_decay: Float[Array, ""]

    def __init__(
        self,
        laplacian: ArrayLike,
        coupling: ArrayLike = 1.0,
        noise_scale: ArrayLike | None = None,
        *,
        weight_decay: ArrayLike = 0.0,
    ):
        matrix = check_matrix("laplacian", laplacian)
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"`laplacian` must be square; got shape {matrix.shape}.")
        rounding = 100 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.abs(matrix))
        asymmetry, sums = jnp.max(jnp.abs(matrix - matrix.T)), jnp.max(jnp.abs(jnp.sum(matrix, axis=1)))
        matrix = require(matrix, asymmetry <= rounding, "`laplacian` must be symmetric.")
        self.laplacian = require(matrix, sums <= rounding, "`laplacian` must have rows that sum to zero.")
        self.coupling = check_positive("coupling", coupling, zero=True, scalar=True)
        self.noise_scale = (
            None if noise_scale is None else check_positive("noise_scale", noise_scale, zero=True, scalar=True)
        )
        self.weight_decay = check_decay(weight_decay)

    def init(self, params: PyTree) -> PyTree:
        """The state is the parameters of all learners."""
        learners = self.laplacian.shape[0]
        for leaf in jax.tree.leaves(params):
            if leaf.shape[:1] != (learners,):
                raise ValueError(
                    f"`model` must have a leading axis of {learners} learners in every trainable array; "
                    f"got shape {leaf.shape}."
                )
        return params

    def params(self, state: PyTree) -> PyTree:
        """The state is the parameters of all learners."""
        return state

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The mean velocity of all learners."""
        del t
        gradients = jax.vmap(objective.penalised(self.weight_decay).gradient)(params)

        def velocity(w: Array, gradient: Array) -> Array:
            pull = self.coupling.astype(w.dtype) * jnp.tensordot(self.laplacian.astype(w.dtype), w, 1)
            return -gradient - pull

        return jax.tree.map(velocity, params, gradients)

    def terms(self, state: PyTree, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.ODETerm | diffrax.MultiTerm:
        """The drift, and with noise a term driven by Brownian motion."""
        drift = diffrax.ODETerm(self.vector_field)
        if self.noise_scale is None:
            return drift
        return diffrax.MultiTerm(drift, white_noise(self.noise_scale, state, t0, t1, key))
