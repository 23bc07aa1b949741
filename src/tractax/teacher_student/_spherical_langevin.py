"""Noisy gradient flow on the sphere."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractStepRule, Objective, check_key, check_positive, standard_normal
from ._spherical import check_spherical, tangential


class SphericalLangevin(AbstractStepRule[None]):
    r"""Gradient flow and Brownian motion on the unit sphere, of generator $D\Delta - \nabla L\cdot\nabla$.

    In the long run directions follow Gibbs' law, with a density $\propto e^{-L/D}$ on the sphere. A step of length $h$
    goes from $\theta$ along the great circle of $-h\nabla L + \sqrt{2Dh}\,\xi$, projected on the tangent space, with
    $\xi$ normal: it stays on the sphere, and averages over the noise are off by $O(h)$. Only the `direction` of the model
    moves.

    **Arguments:**

    - `temperature`: $D \ge 0$; may be an array under `vmap`.
    - `time_per_step`: $h > 0$, in the units of flow time; small compared with $1/(dD)$ in $\mathbb R^d$.

    **Raises:**

    `ValueError` for a negative temperature, or steps that take no time.
    """

    temperature: Float[Array, ""]
    time_per_step: Float[Array, ""]

    def __init__(self, temperature: ArrayLike, time_per_step: ArrayLike):
        self.temperature = check_positive("temperature", temperature, zero=True, scalar=True)
        self.time_per_step = check_positive("time_per_step", time_per_step, scalar=True)

    @property
    def random(self) -> bool:
        """Every step draws its noise."""
        return True

    def init(self, params: PyTree) -> None:
        """Nothing to remember."""
        check_spherical(params, "SphericalLangevin")

    def step(self, params: PyTree, state: None, objective: Objective, *, key: PRNGKeyArray | None) -> tuple[PyTree, None]:
        """One step along a great circle."""
        check_key(key)
        theta = params.direction
        h, temperature = self.time_per_step.astype(theta.dtype), self.temperature.astype(theta.dtype)
        noise = standard_normal(key, theta.shape, theta.dtype)
        push = -h * objective.gradient(params).direction + jnp.sqrt(2 * temperature * h) * noise
        push = tangential(push, theta)
        angle = jnp.linalg.norm(push)
        moved = jnp.cos(angle) * theta + jnp.sinc(angle / jnp.pi) * push
        return eqx.tree_at(lambda p: p.direction, params, moved / jnp.linalg.norm(moved)), state
