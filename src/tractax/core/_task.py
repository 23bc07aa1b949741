"""Where the error comes from."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree


class AbstractTask(eqx.Module):
    """A learning problem: data (moments or samples) and a loss with its exact normalisation."""

    @abc.abstractmethod
    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of a model, averaged over the data. The docstring of each task states the normalisation."""


class AbstractSampledTask(AbstractTask):
    """A task that can also draw mini-batches."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, batch: int) -> Any:
        """Draws `batch` examples; whatever is returned is passed to `batch_loss`."""

    @abc.abstractmethod
    def batch_loss(self, model: PyTree, batch: Any) -> Float[Array, ""]:
        """The loss of a model on one batch; its expectation over batches is `loss(model)`."""


class AbstractFiniteTask(AbstractSampledTask):
    """A task with finitely many examples, whose loss is their mean. A batch holds the numbers of its examples."""

    @property
    @abc.abstractmethod
    def examples(self) -> int:
        """How many examples there are."""

    def sample(self, key: PRNGKeyArray, batch: int) -> Int[Array, " batch"]:
        """The numbers of `batch` examples, drawn uniformly with replacement; there may be more than `examples`."""
        return jax.random.randint(key, (batch,), 0, self.examples)

    def example_losses(self, model: PyTree) -> Float[Array, " examples"]:
        """The loss of every example by itself."""
        return jax.vmap(lambda number: self.batch_loss(model, number[None]))(jnp.arange(self.examples))
