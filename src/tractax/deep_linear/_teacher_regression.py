"""Linear regression on a finite data set whose teacher is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractTask, as_float_array, check_key, check_matrix, check_positive, standard_normal
from ._task import linear_map


class TeacherRegression(AbstractTask):
    r"""Squared error summed over the examples, $L = \tfrac12\sum_\mu (y_\mu - w\,x_\mu)^2$, for one output.

    The sum (not the mean) over examples sets the unit of time: gradient flow is $\tau\dot w = (y - wX)X^\top$. The
    targets come from a teacher, $y = \bar wX + \varepsilon$, so that the generalisation error is known too.

    **Arguments:**

    - `inputs`: $X$, one example a *column*, shape `(in, examples)`.
    - `targets`: $y$, shape `(examples,)`.
    - `teacher`: $\bar w$, shape `(in,)`.
    - `noise_variance`: $\sigma_\varepsilon^2 \ge 0$, the variance of the noise in the targets; it is the floor of the
      generalisation error.

    **Raises:**

    `ValueError` for shapes that do not fit, NaN, or a negative variance.
    """

    inputs: Float[Array, "in examples"]
    targets: Float[Array, " examples"]
    teacher: Float[Array, " in"]
    noise_variance: Float[Array, ""]

    def __init__(
        self,
        inputs: Float[ArrayLike, "in examples"],
        targets: Float[ArrayLike, " examples"],
        teacher: Float[ArrayLike, " in"],
        noise_variance: ArrayLike = 0.0,
    ):
        self.inputs = check_matrix("inputs", inputs)
        n_in, examples = self.inputs.shape
        self.targets = check_matrix("targets", targets, (examples,)).astype(self.inputs.dtype)
        self.teacher = check_matrix("teacher", teacher, (n_in,)).astype(self.inputs.dtype)
        noise_variance = check_positive("noise_variance", noise_variance, zero=True, scalar=True)
        self.noise_variance = noise_variance.astype(self.inputs.dtype)

    @classmethod
    def draw(
        cls,
        n_in: int,
        examples: int,
        *,
        teacher_scale: ArrayLike = 1.0,
        noise_scale: ArrayLike = 0.0,
        key: PRNGKeyArray,
    ) -> "TeacherRegression":
        r"""Normal inputs of variance $1/N$, so that $\lVert x\rVert \approx 1$, and a normal teacher.

        **Arguments:**

        - `n_in`, `examples`: $N$ and $P$.
        - `teacher_scale`: $\sigma_w$, the standard deviation of each entry of the teacher; its dtype is the task's.
        - `noise_scale`: $\sigma_\varepsilon$, the standard deviation of the noise in each target.
        """
        check_key(key)
        if n_in < 1 or examples < 1:
            raise ValueError(f"`n_in` and `examples` must be at least 1; got {n_in} and {examples}.")
        teacher_scale = check_positive("teacher_scale", teacher_scale, zero=True, scalar=True)
        dtype = teacher_scale.dtype
        noise_scale = as_float_array("noise_scale", noise_scale).astype(dtype)
        inputs_key, teacher_key, noise_key = jax.random.split(key, 3)
        inputs = standard_normal(inputs_key, (n_in, examples), dtype) / jnp.sqrt(jnp.asarray(n_in, dtype))
        teacher = teacher_scale * jax.random.normal(teacher_key, (n_in,), dtype)
        noise = noise_scale * jax.random.normal(noise_key, (examples,), dtype)
        return cls(inputs, teacher @ inputs + noise, teacher, noise_scale**2)

    @property
    def load(self) -> float:
        r"""$\alpha = P/N$, examples per input."""
        n_in, examples = self.inputs.shape
        return examples / n_in

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of a network with one output that is linear in its input, of any depth: a sum over examples."""
        weights = self.weights_of(model)
        return self.inputs.shape[1] * self.train_error(weights) / 2

    def train_error(self, weights: Float[Array, " in"]) -> Float[Array, ""]:
        r"""$E_t = \tfrac1P\sum_\mu (y_\mu - wx_\mu)^2$; the loss is $\tfrac P2 E_t$."""
        return jnp.mean((self.targets - weights @ self.inputs) ** 2)

    def generalisation_error(self, weights: Float[Array, " in"]) -> Float[Array, ""]:
        r"""$E_g = \tfrac1N\lVert w - \bar w\rVert^2 + \sigma_\varepsilon^2$: the mean squared error on a new example."""
        return jnp.mean((weights - self.teacher) ** 2) + self.noise_variance

    def weights_of(self, model: PyTree) -> Float[Array, " in"]:
        """The one row of a network's input-output map."""
        product = linear_map(model, self.inputs.shape[0])
        if product.shape != (1, self.inputs.shape[0]):
            raise ValueError(
                f"`model` must have {self.inputs.shape[0]} inputs and 1 output to fit `task`; got "
                f"{product.shape[1]} and {product.shape[0]}."
            )
        return product[0]


class RegressionErrors(eqx.Module):
    """Mean squared errors per example.

    **Attributes:**

    - `train`: on the training examples.
    - `generalisation`: on a new example, noise included.
    """

    train: Float[Array, ""]
    generalisation: Float[Array, ""]
