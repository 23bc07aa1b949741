"""Noisy answers of a teacher to fresh Gaussian inputs: how they are drawn, and the loss on them."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_matrix, check_positive, standard_normal


class AbstractTeacherTask(AbstractSampledTask):
    r"""Half the squared error on answers $y = f^*(x) + \sigma\zeta$ to fresh Gaussian inputs.

    A subclass says how many inputs there are, what the teacher answers, and what its population loss is.

    **Attributes:**

    - `noise_scale`: $\sigma$, the standard deviation of the label noise.
    """

    noise_scale: eqx.AbstractVar[Float[Array, ""]]

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The number of inputs."""

    @abc.abstractmethod
    def answers(self, inputs: Float[Array, "batch in"]) -> Float[Array, " batch"]:
        """The teacher's answers, without noise."""

    def correlated(self, white: Float[Array, "batch in"]) -> Float[Array, "batch in"]:
        """Inputs with their covariance, from white ones; here the same."""
        return white

    def sample(self, key: PRNGKeyArray, batch: int) -> tuple[Float[Array, "batch in"], Float[Array, " batch"]]:
        """Fresh inputs and the teacher's noisy answers."""
        # One draw: the last column is the noise.
        normal = standard_normal(key, (batch, self.size + 1), self.noise_scale.dtype)
        inputs = self.correlated(normal[:, :-1])
        return inputs, self.answers(inputs) + self.noise_scale * normal[:, -1]

    def batch_loss(
        self, model: PyTree, batch: tuple[Float[Array, "batch in"], Float[Array, " batch"]]
    ) -> Float[Array, ""]:
        """Half the squared error, averaged over the batch; for any model with one output."""
        inputs, answers = batch
        return jnp.mean((jax.vmap(model)(inputs) - answers) ** 2) / 2


def check_noise_scale(noise_scale: ArrayLike) -> Float[Array, ""]:
    """The standard deviation of label noise: one number, not negative."""
    return check_matrix("noise_scale", check_positive("noise_scale", noise_scale, zero=True), ())
