"""Classification of a finite data set by the scores of a network."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..core import AbstractFiniteTask, check_indices, check_matrix
from ..special import log_stablemax
from ._modular_network import check_modulus

_PROBABILITIES = {"softmax": jax.nn.log_softmax, "stablemax": log_stablemax}


class CrossEntropyTask(AbstractFiniteTask):
    r"""$L = -\tfrac1n\sum_i\ln p_{y_i}(f(x_i))$, averaged over a data set, for any model with a score for every class.

    Mini-batches are drawn uniformly with replacement; the loss of a batch is the same mean over the batch.

    **Arguments:**

    - `inputs`: $x_i$, one example a row, shape `(examples, in)`.
    - `labels`: $y_i$, whole numbers from 0, shape `(examples,)`.
    - `probabilities`: $p$: `"softmax"`, or `"stablemax"` (`tractax.special.stablemax`).

    **Raises:**

    `ValueError` for wrong shapes, NaN, labels that are no whole numbers from 0, or unknown probabilities.
    """

    inputs: Float[Array, "examples in"]
    labels: Int[Array, " examples"]
    probabilities: str = eqx.field(static=True)

    def __init__(self, inputs: ArrayLike, labels: PyTree, probabilities: str = "softmax"):
        self.inputs = check_matrix("inputs", inputs)
        self.labels = check_indices("labels", labels)
        if self.labels.shape[0] != self.inputs.shape[0]:
            raise ValueError(
                f"`labels` must be as many as the {self.inputs.shape[0]} examples; got {self.labels.shape[0]}."
            )
        if probabilities not in _PROBABILITIES:
            raise ValueError(f"`probabilities` must be one of {', '.join(_PROBABILITIES)}; got {probabilities!r}.")
        self.probabilities = probabilities

    def logits(self, model: PyTree) -> Float[Array, "examples classes"]:
        """The scores of all examples."""
        return self._scores(model, self.inputs)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The mean loss of all examples."""
        return jnp.mean(self._losses(self.logits(model), self.labels))

    def accuracy(self, model: PyTree) -> Float[Array, ""]:
        """The fraction of examples whose largest score is that of their label."""
        logits = self.logits(model)
        return jnp.mean((jnp.argmax(logits, axis=1) == self.labels).astype(logits.dtype))

    def collapse(self, model: PyTree) -> Float[Array, ""]:
        """The fraction of examples whose loss is exactly zero in floating point, so that they send nothing back."""
        return jnp.mean((self._losses(self.logits(model), self.labels) == 0).astype(self.inputs.dtype))

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.inputs.shape[0]

    def batch_loss(self, model: PyTree, batch: Int[Array, " batch"]) -> Float[Array, ""]:
        """The mean loss of the examples with these indices."""
        return jnp.mean(self._losses(self._scores(model, self.inputs[batch]), self.labels[batch]))

    def _scores(self, model: PyTree, inputs: Array) -> Array:
        logits = jax.vmap(model)(inputs)
        largest = _concrete_maximum(self.labels)
        if logits.ndim != 2 or (largest is not None and logits.shape[1] <= largest):
            raise ValueError(
                f"`model` must return a score for every class, for labels up to {largest}; got shape {logits.shape[1:]}."
            )
        return logits

    def _losses(self, logits: Array, labels: Array) -> Array:
        logs = _PROBABILITIES[self.probabilities](logits)
        return -jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0]


def residue_sums(p: int, probabilities: str = "softmax", *, dtype: Any = None) -> CrossEntropyTask:
    """All pairs of residues modulo `p`, each as two one-hot vectors, labelled by their sum: for any network.

    **Arguments:**

    - `p`: the modulus, at least 3.
    - `probabilities`: as in `CrossEntropyTask`.
    - `dtype`: of the inputs; `None` for the default.
    """
    p = check_modulus(p)
    x, y = np.divmod(np.arange(p * p), p)
    inputs = jnp.asarray(np.concatenate([np.eye(p)[x], np.eye(p)[y]], axis=1), dtype)
    return CrossEntropyTask(inputs, (x + y) % p, probabilities)


def _concrete_maximum(labels: Array) -> int | None:
    """The largest label, where it is known."""
    try:
        return int(np.max(np.asarray(labels)))
    except jax.errors.TracerArrayConversionError:
        return None
