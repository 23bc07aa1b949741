"""A loss that is quadratic in the parameters, in the eigenvectors of its Hessian."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ...core import AbstractTask, Assumption, Objective, relative_norm, tolerance_for


def loss_of_vector(
    model: PyTree, loss: Callable[[PyTree], Array]
) -> tuple[Float[Array, " parameters"], Callable[[Array], Array]]:
    """A model's parameters as a vector, and a loss, or several, as a function of such vectors."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)
    return flat, lambda flat: loss(eqx.combine(unravel(flat), static))


class QuadraticModes(eqx.Module):
    """The gradient along the eigenvectors of the Hessian, shape `(parameters,)`, and the loss."""

    gradient: Float[Array, " parameters"]
    loss: Float[Array, ""]


class SpectralLoss(eqx.Module):
    r"""$L + \tfrac\gamma2\lVert\theta\rVert^2$ about its minimum, for a task and weight decay.

    **Attributes:**

    - `curvatures`: ascending, shape `(parameters,)`.
    - `directions`: eigenvectors as columns, shape `(parameters, parameters)`, of parameters in the order of
      `jax.flatten_util.ravel_pytree`.
    - `initial`: gradient and loss at the start.
    """

    task: AbstractTask
    weight_decay: Float[Array, ""]
    curvatures: Float[Array, " parameters"]
    directions: Float[Array, "parameters parameters"]
    initial: QuadraticModes

    @classmethod
    @eqx.filter_jit
    def about(cls, model: PyTree, task: AbstractTask, weight_decay: Float[Array, ""]) -> "SpectralLoss":
        """The loss of this task, as it looks from this model."""
        params, static = eqx.partition(model, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(params)
        decay = weight_decay.astype(flat.dtype)
        objective = Objective(task, static, decay)

        def loss(flat: Array) -> Array:
            return objective.loss(unravel(flat))

        curvatures, directions = jnp.linalg.eigh(jax.hessian(loss)(flat))
        value, gradient = jax.value_and_grad(loss)(flat)
        curvatures, gradient = _without_rounding(curvatures, directions.T @ gradient)
        return cls(task, decay, curvatures, directions, QuadraticModes(gradient, value))

    @eqx.filter_jit
    def reduce(self, model: PyTree) -> QuadraticModes:
        """The gradient of an actual network along the eigenvectors, and its loss, weight decay included."""
        params, static = eqx.partition(model, eqx.is_inexact_array)
        value, gradient = jax.value_and_grad(Objective(self.task, static, self.weight_decay).loss)(params)
        return QuadraticModes(self.directions.T @ ravel_pytree(gradient)[0], value)

    def shrunk(self, factors: Float[Array, " parameters"]) -> QuadraticModes:
        """Gradient and loss where the distance to the minimum along each eigenvector is this part of the first one."""
        safe = jnp.where(self.curvatures == 0, 1.0, self.curvatures)
        energies = jnp.where(self.curvatures == 0, 0.0, self.initial.gradient**2 / (2 * safe))
        gain = jnp.sum(energies * (factors - 1) * (factors + 1))
        return QuadraticModes(factors * self.initial.gradient, self.initial.loss + gain)


@eqx.filter_jit
def quadratic_losses(name: str, model: PyTree, loss: Callable[[PyTree], Array]) -> Assumption:
    """The assumption that second derivatives are the same elsewhere."""
    flat, function = loss_of_vector(model, loss)
    hessian = jax.hessian(function)
    here = hessian(flat)
    scale = 1 + jnp.sqrt(jnp.mean(flat**2))
    elsewhere = hessian(flat + scale * jax.random.normal(jax.random.key(0), flat.shape, flat.dtype))
    return Assumption(name, relative_norm(elsewhere - here, here), tolerance_for(flat))


def convex_assumptions(loss: SpectralLoss) -> list[Assumption]:
    """No direction of the loss goes down for ever."""
    curvatures, gradient = loss.curvatures, loss.initial.gradient
    flat = jnp.where(curvatures == 0, gradient, 0.0)
    tolerance = tolerance_for(curvatures)
    return [
        Assumption("convex loss", relative_norm(jnp.minimum(curvatures, 0.0), curvatures), tolerance),
        Assumption("no gradient without curvature", relative_norm(flat, gradient), tolerance),
    ]


def _without_rounding(curvatures: Array, gradient: Array) -> tuple[Array, Array]:
    """Flat directions are flat, and have no gradient, if only rounding says otherwise."""
    rounding = 10 * curvatures.size * jnp.finfo(curvatures.dtype).eps
    flat = jnp.abs(curvatures) <= rounding * jnp.max(jnp.abs(curvatures))
    still = flat & (jnp.abs(gradient) <= rounding * jnp.linalg.norm(gradient))
    return jnp.where(flat, 0.0, curvatures), jnp.where(still, 0.0, gradient)
