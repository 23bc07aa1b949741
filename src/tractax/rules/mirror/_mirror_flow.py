"""Mirror flow: gradient flow in which every number has its own speed, given by where it is."""

from typing import Any, ClassVar

import jax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractParameterFlow, Objective, check_positive
from ..descent._weight_decay import check_decay
from ._mirror_potential import AbstractMirrorPotential, check_potential


class MirrorFlow(AbstractParameterFlow):
    r"""$\tau\,\dot\theta = -\nabla L(\theta)/\varphi''(\theta)$, so that $\varphi'(\theta)$ moves down the gradient.

    If it ends at a global minimum of least squares, then at the one that is nearest to the start in the Bregman
    divergence of $\varphi$.

    **Arguments:**

    - `potential`: $\varphi$, such as `HyperbolicEntropy(0.1)` or `Entropy()`.
    - `time_constant`: $\tau > 0$, the unit in which time is measured.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for another kind of potential, a time constant that is not positive, or a negative decay.
    """

    potential: AbstractMirrorPotential
    time_constant: Float[Array, ""]
    weight_decay: Float[Array, ""]
    # Up to a change of coordinates the Jacobian is a symmetric matrix.
    real_spectrum: ClassVar[bool] = True

    def __init__(self, potential: PyTree, time_constant: ArrayLike = 1.0, *, weight_decay: ArrayLike = 0.0):
        self.potential = check_potential(potential)
        self.time_constant = check_positive("time_constant", time_constant, scalar=True)
        self.weight_decay = check_decay(weight_decay)

    def init(self, params: PyTree) -> PyTree:
        """The state is the parameters themselves."""
        return self.potential.checked(params, params)

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t

        def velocity(w: Array, gradient: Array) -> Array:
            return -self.potential.speed(w) * gradient / self.time_constant.astype(w.dtype)

        return jax.tree.map(velocity, params, objective.penalised(self.weight_decay).gradient(params))
