"""Means over noise of the parameters of a model whose loss is quadratic: what several theories of noisy rules share."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ...core import AbstractSolution, AbstractTask, Assumption, tolerance_for
from ..descent._quadratic_loss import loss_of_vector


class ParameterMoments(eqx.Module):
    r"""How far a model is from a minimum, and its loss; of a noisy rule, averages over the noise.

    Parameters are in the order of `jax.flatten_util.ravel_pytree`, and $\delta$ is their displacement from the minimum.

    **Attributes:**

    - `mean`: $\mathbb E\,\delta$, shape `(parameters,)`.
    - `second`: $\mathbb E\,\delta\delta^\top$, shape `(parameters, parameters)`.
    - `loss`: the mean of the task's loss.
    """

    mean: Float[Array, "*times parameters"]
    second: Float[Array, "*times parameters parameters"]
    loss: Float[Array, "*times"]

    @property
    def covariance(self) -> Float[Array, "*times parameters parameters"]:
        """The covariance of the parameters."""
        return self.second - self.mean[..., :, None] * self.mean[..., None, :]


class QuadraticLoss(eqx.Module):
    r"""A task's loss around the minimum nearest to a model, of the loss with the penalty $\tfrac\gamma2\lVert w\rVert^2$.

    **Attributes:**

    - `task`: the task.
    - `minimum`: the parameters there, shape `(parameters,)`.
    - `lowest`, `slope`, `hessian`: the task's loss there and its derivatives, without the penalty.
    - `weight_decay`: $\gamma$.
    - `displacement`: of the model from the minimum.
    - `basis`: orthonormal columns, the eigenvectors of the Hessian as far as values are concerned. As a constant it has
      no derivative, which repeated eigenvalues would make infinite.
    - `curved`: which of them are not flat, penalty included.
    """

    task: AbstractTask
    minimum: Float[Array, " parameters"]
    lowest: Float[Array, ""]
    slope: Float[Array, " parameters"]
    hessian: Float[Array, "parameters parameters"]
    weight_decay: Float[Array, ""]
    displacement: Float[Array, " parameters"]
    basis: Float[Array, "parameters parameters"]
    curved: Array

    @classmethod
    def at(cls, model: PyTree, task: AbstractTask, weight_decay: Float[Array, ""]) -> "QuadraticLoss":
        """The quadratic that agrees with the loss around a model."""
        flat, loss = loss_of_vector(model, task.loss)
        value, gradient = jax.value_and_grad(loss)(flat)
        hessian = jax.hessian(loss)(flat)
        decay = weight_decay.astype(flat.dtype)
        penalised = hessian + decay * jnp.eye(flat.size, dtype=flat.dtype)
        curvatures, basis = jnp.linalg.eigh(jax.lax.stop_gradient(penalised))
        curved = jnp.abs(curvatures) > 10 * flat.size * jnp.finfo(flat.dtype).eps * jnp.max(jnp.abs(curvatures))
        matrix = keep(basis.T @ penalised @ basis, curved[:, None] & curved[None, :])
        flats = jnp.diag(jnp.where(curved, 0.0, 1.0).astype(flat.dtype))
        pull = keep(basis.T @ (gradient + decay * flat), curved)
        displacement = basis @ jnp.linalg.solve(matrix + flats, pull)
        slope = gradient - hessian @ displacement
        lowest = value - displacement @ gradient + displacement @ hessian @ displacement / 2
        return cls(task, flat - displacement, lowest, slope, hessian, decay, displacement, basis, curved)

    @property
    def penalised(self) -> Float[Array, "parameters parameters"]:
        """The Hessian of the loss with its penalty."""
        return self.hessian + self.weight_decay * jnp.eye(self.minimum.size, dtype=self.hessian.dtype)

    def velocity(
        self, mean: Float[Array, " parameters"], second: Float[Array, "parameters parameters"]
    ) -> ParameterMoments:
        """The velocity of the state, given those of the moments."""
        return ParameterMoments(mean, second, self.slope @ mean + jnp.sum(self.hessian * second) / 2)

    def moments(
        self, mean: Float[Array, " parameters"], second: Float[Array, "parameters parameters"]
    ) -> ParameterMoments:
        """The state with these moments."""
        return ParameterMoments(mean, second, self.lowest + self.slope @ mean + jnp.sum(self.hessian * second) / 2)

    def reduce(self, model: PyTree) -> ParameterMoments:
        """The state of one model."""
        params = eqx.filter(model, eqx.is_inexact_array)
        mean = ravel_pytree(params)[0] - self.minimum
        return ParameterMoments(mean, mean[:, None] * mean[None, :], self.task.loss(model))


class AbstractParameterMoments(AbstractSolution[ParameterMoments]):
    """Moments of the parameters on a quadratic loss.

    **Attributes:**

    - `quadratic`: the loss around its minimum.
    """

    quadratic: QuadraticLoss

    @property
    def minimum(self) -> Float[Array, " parameters"]:
        """The parameters from which displacements are counted: of the minimum nearest to the start."""
        return self.quadratic.minimum

    def reduce(self, model: PyTree) -> ParameterMoments:
        """The displacement and loss of one model; theory speaks of their mean over runs."""
        return self.quadratic.reduce(model)


def keep(x: Array, kept: Array) -> Array:
    """`x` without the rounding where it vanishes, but with its derivative there."""
    return x + jax.lax.stop_gradient(jnp.where(kept, 0.0, -x))


def has_minimum(quadratic: QuadraticLoss) -> Assumption:
    """The assumption that the loss, with its penalty, is lowest somewhere: no slope along flat directions."""
    gradient = quadratic.slope + quadratic.weight_decay * quadratic.minimum
    scale = jnp.linalg.norm(quadratic.hessian @ quadratic.displacement) + jnp.linalg.norm(gradient)
    relative = jnp.linalg.norm(gradient) / jnp.where(scale == 0, 1.0, scale)
    return Assumption("a minimum exists", relative, tolerance_for(gradient))
