"""Langevin dynamics: gradient flow at a temperature."""

from typing import Any

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractParameterFlow, Objective, check_positive
from ..descent._gradient_flow import GradientFlow
from ._brownian_motion import white_noise


class LangevinFlow(AbstractParameterFlow):
    r"""$d\theta = -(\nabla L(\theta) + \gamma\,\theta)\,dt + \sqrt{2T}\,dW$, with white noise on every trainable number.

    In the long run parameters follow Gibbs' law, with a density $\propto e^{-(L + \gamma\lVert\theta\rVert^2/2)/T}$ where
    that can be normalised.

    This is a stochastic differential equation: `tx.train` needs a `key`, and a solver of fixed steps. The noise does not
    depend on the state, so that `diffrax.Euler`, `Heun` and diffrax's solvers for additive noise all converge:
    `solver=diffrax.Euler(), dt0=0.01, stepsize_controller=diffrax.ConstantStepSize()`. Euler's method with steps $h$ is
    gradient descent of learning rate $h$ plus normal noise of variance $2Th$.

    **Arguments:**

    - `temperature`: $T \ge 0$; may be an array under `vmap`.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for a negative temperature or weight decay.
    """

    temperature: Float[Array, ""]
    drift: GradientFlow

    def __init__(self, temperature: ArrayLike, weight_decay: ArrayLike = 0.0):
        self.temperature = check_positive("temperature", temperature, zero=True, scalar=True)
        self.drift = GradientFlow(weight_decay=weight_decay)

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The mean velocity of the parameters."""
        return self.drift.vector_field(t, params, objective)

    def terms(self, state: PyTree, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.MultiTerm:
        """The drift, and a term driven by Brownian motion."""
        noise = white_noise(jnp.sqrt(2 * self.temperature), state, t0, t1, key)
        return diffrax.MultiTerm(diffrax.ODETerm(self.vector_field), noise)
