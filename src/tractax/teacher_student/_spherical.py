"""Models that are a point on a sphere, and gradient rules that keep them there."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import (
    AbstractParameterFlow,
    AbstractSampledTask,
    AbstractStepRule,
    Objective,
    check_count,
    check_key,
    check_matrix,
    check_positive,
    require,
)


class AbstractSpherical(eqx.Module):
    """A model whose trained part is a unit vector, `direction`."""

    direction: eqx.AbstractVar[Float[Array, " in"]]


class SphericalFlow(AbstractParameterFlow):
    r"""$\tau\,\dot\theta = -(I - \theta\theta^\top)\,\nabla L(\theta)$: gradient flow on the unit sphere.

    Only the `direction` of the model moves.

    **Arguments:**

    - `time_constant`: $\tau > 0$, the unit in which time is measured.
    """

    time_constant: Float[Array, ""]

    def __init__(self, time_constant: ArrayLike = 1.0):
        self.time_constant = check_positive("time_constant", time_constant, scalar=True)

    def init(self, params: PyTree) -> PyTree:
        """The state is the parameters themselves."""
        return check_spherical(params, "SphericalFlow")

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        gradient = objective.gradient(params).direction
        velocity = -tangential(gradient, params.direction) / self.time_constant.astype(gradient.dtype)
        return eqx.tree_at(lambda p: p.direction, jax.tree.map(jnp.zeros_like, params), velocity)


class SphericalSGD(AbstractStepRule[None]):
    r"""Steps $\theta \leftarrow \theta - \tfrac\eta d(I - \theta\theta^\top)\nabla\ell$ on fresh examples.

    After every step $\theta$ is rescaled to unit length; $\ell$ is the loss averaged over the batch. One step takes the
    time $1/d$. Only the `direction` of the model moves.

    **Arguments:**

    - `learning_rate`: $\eta > 0$; may be an array under `vmap`.
    - `size`: $d$, the number of inputs.
    - `batch_size`: how many examples, drawn afresh, one step sees.

    **Raises:**

    `ValueError` for a rate that is not positive, or numbers that are not whole.
    """

    learning_rate: Float[Array, ""]
    time_per_step: Float[Array, ""]
    batch_size: int = eqx.field(static=True)

    def __init__(self, learning_rate: ArrayLike, size: int, *, batch_size: int = 1):
        for name, number in (("size", size), ("batch_size", batch_size)):
            check_count(name, number)
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.time_per_step = jnp.asarray(1 / size, self.learning_rate.dtype)
        self.batch_size = batch_size

    @property
    def random(self) -> bool:
        """Every step draws its examples."""
        return True

    def init(self, params: PyTree) -> None:
        """Nothing to remember."""
        check_spherical(params, "SphericalSGD")

    def step(self, params: PyTree, state: None, objective: Objective, *, key: PRNGKeyArray | None) -> tuple[PyTree, None]:
        """One step on fresh examples."""
        check_key(key)
        task = objective.task
        if not isinstance(task, AbstractSampledTask):
            raise ValueError(f"`task` must be one that can be sampled for SphericalSGD; got {type(task).__name__}.")
        batch = task.sample(key, self.batch_size)
        gradient = jax.grad(lambda params: task.batch_loss(objective.model(params), batch))(params).direction
        rate = (self.learning_rate * self.time_per_step).astype(gradient.dtype)
        moved = params.direction - rate * tangential(gradient, params.direction)
        return eqx.tree_at(lambda p: p.direction, params, moved / jnp.linalg.norm(moved)), state


def tangential(vector: Float[Array, " in"], direction: Float[Array, " in"]) -> Float[Array, " in"]:
    """The part of a vector that is orthogonal to a direction, which need not be of unit length."""
    return vector - direction * (direction @ vector) / (direction @ direction)


def check_unit(name: str, vector: Any) -> Float[Array, " in"]:
    """`vector` as a unit vector, or an error naming `name`."""
    vector = check_matrix(name, vector, (None,))
    length = jnp.linalg.norm(vector)
    rounding = 1e-8 if vector.dtype == jnp.float64 else 1e-4
    return require(vector, jnp.abs(length - 1) <= rounding, f"`{name}` must be a unit vector; its length is {length}.")


def check_spherical(params: PyTree, rule: str) -> PyTree:
    """The parameters, if they are those of a spherical model."""
    if not isinstance(params, AbstractSpherical):
        kind = type(params).__name__
        raise ValueError(f"`model` must be a unit vector, such as a SingleIndex, for {rule}; got {kind}.")
    return params
