"""Single-index models: a link function of one projection of the input, and a teacher of the same kind."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import check_count, check_finite, check_key, check_matrix, require, standard_normal
from ..special import safe_sqrt
from ._hermite_link import HermiteLink, check_link
from ._spherical import AbstractSpherical, check_unit
from ._teacher_task import AbstractTeacherTask, check_noise_scale


class SingleIndex(AbstractSpherical):
    r"""$f(\theta\cdot x)$ with a unit vector $\theta$ and a link function $f$, which the spherical rules leave as it is.

    **Arguments:**

    - `direction`: $\theta$, of unit length, shape `(in,)`.
    - `link`: $f$, a `HermiteLink`.

    **Raises:**

    `ValueError` if the direction is not of unit length, or the link of another kind.
    """

    direction: Float[Array, " in"]
    link: HermiteLink

    def __init__(self, direction: ArrayLike | Sequence, link: PyTree):
        link = check_link("link", link)
        self.direction = check_unit("direction", direction)
        self.link = eqx.tree_at(lambda f: f.coefficients, link, link.coefficients.astype(self.direction.dtype))

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """The output for one input."""
        return self.link(self.direction @ x)


class SingleIndexTask(AbstractTeacherTask):
    r"""Half the squared error on the answers $y = f^*(\theta^*\cdot x) + \sigma\zeta$ of a teacher, for normal inputs.

    **Arguments:**

    - `teacher`: a `SingleIndex`; it is not trained.
    - `noise_scale`: $\sigma \ge 0$, the standard deviation of the label noise.

    **Raises:**

    `ValueError` for a negative noise or another kind of teacher.
    """

    teacher: SingleIndex
    noise_scale: Float[Array, ""]

    def __init__(self, teacher: PyTree, noise_scale: ArrayLike = 0.0):
        if not isinstance(teacher, SingleIndex):
            raise ValueError(f"`teacher` must be a SingleIndex; got {type(teacher).__name__}.")
        self.teacher = teacher
        self.noise_scale = check_noise_scale(noise_scale).astype(teacher.direction.dtype)

    @property
    def size(self) -> int:
        """The number of inputs."""
        return self.teacher.direction.size

    def answers(self, inputs: Float[Array, "batch in"]) -> Float[Array, " batch"]:
        """The teacher's answers, without noise."""
        return jax.vmap(self.teacher)(inputs)

    def overlap(self, model: SingleIndex) -> Float[Array, ""]:
        r"""$m = \theta\cdot\theta^*$, of the directions that the vectors have."""
        direction = check_single_index(model, self).direction
        return direction @ self.teacher.direction / jnp.linalg.norm(direction)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        r"""The population loss, $\tfrac12\sum_k(a_k^2 + b_k^2 - 2a_kb_km^k) + \tfrac12\sigma^2$."""
        model = check_single_index(model, self)
        power = jnp.sum(model.link.coefficients**2) + jnp.sum(self.teacher.link.coefficients**2) + self.noise_scale**2
        signals = hermite_signals(model.link, self.teacher.link)
        return power / 2 - sum(c * self.overlap(model) ** k for k, c in signals.items())


def single_indices(
    overlap: ArrayLike, *, size: int, student: PyTree, teacher: PyTree, key: PRNGKeyArray
) -> tuple[SingleIndex, SingleIndex]:
    """A student and a teacher with exactly the given overlap, in random directions.

    **Arguments:**

    - `overlap`: $m = \\theta\\cdot\\theta^*$, from -1 to 1.
    - `size`: $d$, the number of inputs, at least 2.
    - `student`, `teacher`: their link functions.
    - `key`: for the directions.

    **Returns:**

    `(student, teacher)`.

    **Raises:**

    `ValueError` for an overlap that no unit vectors have, or a size below 2.
    """
    check_key(key)
    size = check_count("size", size, least=2)
    m = check_matrix("overlap", check_overlap("overlap", overlap), ())
    first, second = jnp.linalg.qr(standard_normal(key, (size, 2), m.dtype))[0].T
    across = safe_sqrt((1 - m) * (1 + m))
    return SingleIndex(m * first + across * second, student), SingleIndex(first, teacher)


def check_overlap(name: str, overlap: ArrayLike) -> Float[Array, "..."]:
    """An overlap of unit vectors, or an array of them, or an error naming `name`."""
    m = check_finite(name, overlap)
    rounding = 8 * jnp.finfo(m.dtype).eps
    return require(m, jnp.all(jnp.abs(m) <= 1 + rounding), f"`{name}` must lie between -1 and 1; got {overlap}.")


def hermite_signals(student: HermiteLink, teacher: HermiteLink) -> dict[int, Float[Array, ""]]:
    """$a_kb_k$ of every order that both links have."""
    shared = [k for k in student.orders if k in teacher.orders]
    a, b = student.all_coefficients, teacher.all_coefficients
    return {k: a[k] * b[k] for k in shared}


def check_single_index(model: PyTree, task: PyTree) -> SingleIndex:
    """The model, if it is a single-index model that fits the task."""
    if not isinstance(model, SingleIndex):
        raise ValueError(f"`model` must be a SingleIndex; got {type(model).__name__}.")
    if not isinstance(task, SingleIndexTask):
        raise ValueError(f"`task` must be a SingleIndexTask; got {type(task).__name__}.")
    size = task.teacher.direction.size
    if model.direction.size != size:
        raise ValueError(f"`model` must have {size} inputs, as the teacher has; got {model.direction.size}.")
    return model
