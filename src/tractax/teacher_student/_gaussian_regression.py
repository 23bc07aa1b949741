"""Linear regression from Gaussian inputs: the population, and a finite sample of it."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ..core import AbstractFiniteTask, check_count, check_key, check_matrix, check_positive, check_psd, require
from ._linear_model import check_linear
from ._teacher_task import AbstractTeacherTask, check_noise_scale


class GaussianRegression(AbstractTeacherTask):
    r"""Half the squared error on fresh examples $y = x\cdot\theta^* + \sigma\zeta$, $x\sim\mathcal N(0, K)$.

    **Arguments:**

    - `teacher`: $\theta^*$, shape `(in,)`.
    - `covariance`: $K$ of the inputs: a matrix of shape `(in, in)`, its diagonal of shape `(in,)`, or `None` for the
      identity.
    - `noise_scale`: $\sigma \ge 0$, the standard deviation of the label noise.

    **Attributes:**

    - `variances`: the eigenvalues of $K$; of a diagonal one, its entries in their order.
    - `directions`: its eigenvectors, the columns of a matrix; `None` for a diagonal one.

    **Raises:**

    `ValueError` for shapes that do not fit, NaN, a covariance that is not positive semi-definite or vanishes, or a
    negative noise.
    """

    teacher: Float[Array, " in"]
    variances: Float[Array, " in"]
    directions: Float[Array, "in in"] | None
    noise_scale: Float[Array, ""]

    def __init__(
        self,
        teacher: Float[ArrayLike, " in"],
        covariance: Float[ArrayLike, "..."] | None = None,
        noise_scale: ArrayLike = 0.0,
    ):
        self.teacher = check_matrix("teacher", teacher, (None,))
        size, dtype = self.teacher.shape[0], self.teacher.dtype
        if covariance is None or jnp.ndim(covariance) == 1:
            diagonal = jnp.ones(size, dtype) if covariance is None else check_matrix("covariance", covariance, (size,))
            self.variances = check_positive("covariance", diagonal, zero=True).astype(dtype)
            self.directions = None
        else:
            # Rounding may leave negative eigenvalues where inputs do not vary.
            values, vectors = jnp.linalg.eigh(check_psd("covariance", covariance, size).astype(dtype))
            floor = size * jnp.finfo(dtype).eps * values[-1]
            self.variances = jnp.where(values > floor, values, 0.0)
            self.directions = vectors
        message = "`covariance` must not vanish; all inputs would be zero."
        self.variances = require(self.variances, jnp.max(self.variances) > 0, message)
        self.noise_scale = check_noise_scale(noise_scale).astype(dtype)

    def to_modes(self, x: Float[Array, "*rows in"]) -> Float[Array, "*rows in"]:
        """Inputs or weights, along the eigenvectors of the covariance."""
        return x if self.directions is None else x @ self.directions

    @property
    def size(self) -> int:
        """The number of inputs."""
        return self.teacher.shape[0]

    def answers(self, inputs: Float[Array, "batch in"]) -> Float[Array, " batch"]:
        """The teacher's answers, without noise."""
        return inputs @ self.teacher

    def correlated(self, white: Float[Array, "batch in"]) -> Float[Array, "batch in"]:
        """Inputs with covariance $K$, from white ones."""
        modes = white * jnp.sqrt(self.variances)[None, :]
        return modes if self.directions is None else modes @ self.directions.T

    def excess_risk(self, model: PyTree) -> Float[Array, ""]:
        r"""$\tfrac12(\theta - \theta^*)^\top K(\theta - \theta^*)$ of a `LinearModel`: its risk less the teacher's."""
        displacement = self.to_modes(check_linear(model, self.teacher.shape[0]) - self.teacher)
        return self.variances @ displacement**2 / 2

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The risk of a `LinearModel`: the excess risk and the noise that no one can learn, $\\sigma^2/2$."""
        return self.excess_risk(model) + self.noise_scale**2 / 2

    def draw(self, examples: int, *, key: PRNGKeyArray) -> "RegressionSample":
        """A data set of so many examples."""
        check_key(key)
        examples = check_count("examples", examples)
        return RegressionSample(self, *self.sample(key, examples))


class RegressionSample(AbstractFiniteTask):
    r"""Mean squared error over a data set, $L = \tfrac1{2n}\sum_i(f(x_i) - y_i)^2$, drawn from a known population.

    Made by `GaussianRegression.draw`. Mini-batches are drawn uniformly with replacement.

    **Arguments:**

    - `population`: where the examples come from.
    - `inputs`: $x_i$, one example a row, shape `(examples, in)`.
    - `labels`: $y_i$, shape `(examples,)`.

    **Raises:**

    `ValueError` for shapes that do not fit, NaN, or another kind of population.
    """

    population: GaussianRegression
    inputs: Float[Array, "examples in"]
    labels: Float[Array, " examples"]

    def __init__(self, population: PyTree, inputs: Float[ArrayLike, "examples in"], labels: Float[ArrayLike, "..."]):
        if not isinstance(population, GaussianRegression):
            raise ValueError(f"`population` must be a GaussianRegression; got {type(population).__name__}.")
        size, dtype = population.teacher.shape[0], population.teacher.dtype
        self.population = population
        self.inputs = check_matrix("inputs", inputs, (None, size)).astype(dtype)
        self.labels = check_matrix("labels", labels, (self.inputs.shape[0],)).astype(dtype)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Half the squared error, averaged over all examples; for any model with one output."""
        return self.population.batch_loss(model, (self.inputs, self.labels))

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.inputs.shape[0]

    def batch_loss(self, model: PyTree, batch: Int[Array, " batch"]) -> Float[Array, ""]:
        """Half the squared error, averaged over the examples with these indices."""
        return self.population.batch_loss(model, (self.inputs[batch], self.labels[batch]))
