"""Classify points by the sign of one coordinate, near whose zero examples may be rare."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_count, check_finite, require, standard_normal
from ..special import safe_sqrt
from ._linear_classifier import LinearClassifier
from ._margin_losses import Hinge

# The integrands are smooth functions of ln x, as wide as one; only a weight without noise makes a step of them.
_NODES = 4000


class PerceptronTask(AbstractSampledTask):
    r"""The label is the sign of $x_1$; the loss is the hinge loss $\max(0, \kappa - y\,f(x))$, averaged over examples.

    $\lvert x_1\rvert$ has the density $\propto x^\chi e^{-x^2/2}$, and all other coordinates are standard normal: the
    larger $\chi$, the rarer are examples near the boundary between the classes. $\chi = 0$ is the Gaussian.

    **Arguments:**

    - `size`: $d$, the number of inputs, at least 2.
    - `exponent`: $\chi > -1$.
    - `threshold`: $\kappa \ge 0$, the margin that is enough.

    **Raises:**

    `ValueError` for too few inputs, an exponent of -1 or less, or a negative threshold.
    """

    size: int = eqx.field(static=True)
    exponent: Float[Array, ""]
    margin_loss: Hinge

    def __init__(self, size: int, exponent: ArrayLike = 0.0, threshold: ArrayLike = 0.5):
        size = check_count("size", size, least=2)
        self.size = size
        chi = check_finite("exponent", exponent)
        self.exponent = require(chi, chi > -1, f"`exponent` must be greater than -1; got {exponent}.")
        self.margin_loss = Hinge(threshold)

    def sample(self, key: PRNGKeyArray, batch: int) -> tuple[Float[Array, "batch in"], Float[Array, " batch"]]:
        """Fresh inputs and their labels."""
        first, sign, others = jax.random.split(key, 3)
        dtype = self.exponent.dtype
        distance = jnp.sqrt(2 * jax.random.gamma(first, (self.exponent + 1) / 2, (batch,), dtype))
        labels = jax.random.rademacher(sign, (batch,), dtype)
        rest = standard_normal(others, (batch, self.size - 1), dtype)
        return jnp.concatenate([(labels * distance)[:, None], rest], axis=1), labels

    def batch_loss(
        self, model: PyTree, batch: tuple[Float[Array, "batch in"], Float[Array, " batch"]]
    ) -> Float[Array, ""]:
        """The hinge loss, averaged over the batch; for any model with one output."""
        inputs, labels = batch
        return jnp.mean(self.margin_loss(labels * jax.vmap(model)(inputs)))

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The hinge loss, averaged over all inputs."""
        signal, noise = split_weights(model, self)
        distances, weights = self.nodes(signal.dtype)
        gaps = self.margin_loss.threshold.astype(signal.dtype) - signal * distances
        below = probability_below(gaps, noise)
        return weights @ (gaps * below + noise * density(gaps, noise))

    def error(self, model: PyTree) -> Float[Array, ""]:
        """The fraction of all inputs that a linear classifier gets wrong."""
        signal, noise = split_weights(model, self)
        distances, weights = self.nodes(signal.dtype)
        return weights @ probability_below(-signal * distances, noise)

    def nodes(self, dtype: np.dtype) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
        r"""Distances from the boundary, and weights that sum to one, which average any function of $\lvert x_1\rvert$."""
        chi = self.exponent.astype(dtype)
        # Evenly spaced in ln x, from where all but 1e-16 of the examples are farther to where no more are.
        low, high = -37 / (chi + 1), jnp.log(jnp.sqrt(chi + 1) + 9)
        logs = low + (high - low) * jnp.linspace(0, 1, _NODES, dtype=dtype)
        distances = jnp.exp(logs)
        log_density = (chi + 1) * logs - distances**2 / 2
        return distances, jax.nn.softmax(log_density)


def split_weights(model: PyTree, task: PyTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The weight along the first coordinate, and the length of the rest, of a classifier that fits the task."""
    model, _ = check_perceptron(model, task)
    return model.weights[0], safe_sqrt(jnp.sum(model.weights[1:] ** 2))


def probability_below(gap: Float[Array, "*shape"], noise: Float[Array, ""]) -> Float[Array, "*shape"]:
    """Of a normal variable of this standard deviation; one half at a tie without noise."""
    return jax.scipy.special.ndtr(_ratio(gap, noise))


def density(gap: Float[Array, "*shape"], noise: Float[Array, ""]) -> Float[Array, "*shape"]:
    """The standard normal density at the ratio."""
    return jnp.exp(-(_ratio(gap, noise) ** 2) / 2) / np.sqrt(2 * np.pi).astype(gap.dtype)


def _ratio(gap: Array, noise: Array) -> Array:
    # Beyond 40 standard deviations nothing is representable, and without noise everything is.
    return jnp.clip(gap / jnp.maximum(noise, jnp.finfo(gap.dtype).tiny), -40.0, 40.0)


def check_perceptron(model: PyTree, task: PyTree) -> tuple[LinearClassifier, PerceptronTask]:
    """The model and the task, if they are a linear classifier and a perceptron task of its size."""
    if not isinstance(model, LinearClassifier):
        raise ValueError(f"`model` must be a LinearClassifier; got {type(model).__name__}.")
    if not isinstance(task, PerceptronTask):
        raise ValueError(f"`task` must be a PerceptronTask; got {type(task).__name__}.")
    if model.weights.shape != (task.size,):
        raise ValueError(f"`model` must have {task.size} inputs, as `task` has; got {model.weights.shape[0]}.")
    return model, task
