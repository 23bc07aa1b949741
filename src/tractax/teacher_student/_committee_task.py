"""Learn a committee machine from its noisy answers, one fresh example after another."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._committee import SoftCommittee
from ._teacher_task import AbstractTeacherTask, check_noise_scale


class CommitteeTask(AbstractTeacherTask):
    r"""Half the squared error on the answers $y = f^*(x) + \sigma\zeta$ of a teacher, $x\sim\mathcal N(0, I_N)$.

    **Arguments:**

    - `teacher`: $f^*$, a `SoftCommittee`; it is not trained.
    - `noise_scale`: $\sigma \ge 0$, the standard deviation of the label noise.

    **Raises:**

    `ValueError` for a negative noise or another kind of teacher.
    """

    teacher: SoftCommittee
    noise_scale: Float[Array, ""]

    def __init__(self, teacher: PyTree, noise_scale: ArrayLike = 0.0):
        if not isinstance(teacher, SoftCommittee):
            raise ValueError(f"`teacher` must be a SoftCommittee; got {type(teacher).__name__}.")
        self.teacher = teacher
        self.noise_scale = check_noise_scale(noise_scale).astype(teacher.weights.dtype)

    @property
    def size(self) -> int:
        """The number of inputs."""
        return self.teacher.weights.shape[1]

    def answers(self, inputs: Float[Array, "batch in"]) -> Float[Array, " batch"]:
        """The teacher's answers, without noise."""
        return jax.vmap(self.teacher)(inputs)

    def generalisation_error(self, model: PyTree) -> Float[Array, ""]:
        """Half the squared distance to the teacher itself, averaged over all inputs, from the overlaps of the weights."""
        model, teacher = check_committee(model, self), self.teacher
        weights = jnp.concatenate([model.weights, teacher.weights])
        signs = jnp.concatenate([model.readout, -teacher.readout])
        return error_from_overlaps(model, signs, weights @ weights.T / weights.shape[1])

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The generalisation error and the noise that no one can learn, $\\sigma^2/2$."""
        return self.generalisation_error(model) + self.noise_scale**2 / 2


def error_from_overlaps(
    model: SoftCommittee, signs: Float[Array, " units"], covariance: Float[Array, "units units"]
) -> Float[Array, ""]:
    """Half the mean square of a signed sum over hidden units."""
    n = jnp.arange(signs.shape[0])
    return signs @ model.activation.pair(covariance, n[:, None], n[None, :]) @ signs / 2


def check_committee(model: PyTree, task: PyTree) -> SoftCommittee:
    """The model, if it is a committee that fits the task and shares the teacher's activation."""
    if not isinstance(model, SoftCommittee):
        raise ValueError(f"`model` must be a SoftCommittee; got {type(model).__name__}.")
    if not isinstance(task, CommitteeTask):
        raise ValueError(f"`task` must be a CommitteeTask; got {type(task).__name__}.")
    inputs = task.teacher.weights.shape[1]
    if model.weights.shape[1] != inputs:
        raise ValueError(f"`model` must have {inputs} inputs, as the teacher has; got {model.weights.shape[1]}.")
    if not eqx.tree_equal(model.activation, task.teacher.activation):
        raise ValueError(
            f"`model` must have the teacher's activation, {task.teacher.activation}; got {model.activation}."
        )
    return model
