"""Where the error comes from."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


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
