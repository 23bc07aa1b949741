"""What rules have in common that learn by trial."""

import abc
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import AbstractStepRule, Objective, check_key, check_positive
from ._batch_loss import check_batch_size


def _as_rate(x: Any) -> Array:
    return check_positive("learning_rate", x)


def _as_scale(x: Any) -> Array:
    return check_positive("noise_scale", x)


class AbstractPerturbation(AbstractStepRule[None]):
    r"""Steps along an estimate of the gradient from how the loss changes under random perturbations.

    **Arguments:**

    - `learning_rate`: $\eta > 0$, also the flow time of a step; may be an array under `vmap`.
    - `noise_scale`: $\sigma > 0$. The smaller, the less noise is left in the end; too small, and the difference of two
      losses is all rounding.
    - `batch_size`: `None` for all examples, or the number of examples drawn afresh at each step.

    **Raises:**

    `ValueError` for numbers that are not positive, or an empty batch.
    """

    learning_rate: Float[Array, ""] = eqx.field(converter=_as_rate)
    noise_scale: Float[Array, ""] = eqx.field(converter=_as_scale)
    batch_size: int | None = eqx.field(static=True, kw_only=True, converter=check_batch_size, default=None)

    @property
    def time_per_step(self) -> Float[Array, ""]:
        r"""$\eta$."""
        return self.learning_rate

    @property
    def random(self) -> bool:
        """Every step draws its noise."""
        return True

    def init(self, params: PyTree) -> None:
        """Nothing to remember."""
        del params

    def step(self, params: PyTree, state: None, objective: Objective, *, key: PRNGKeyArray | None) -> tuple[PyTree, None]:
        """One trial."""
        check_key(key)
        batch_key, noise_key = jax.random.split(key)
        estimate = self._trial(params, objective, batch_key, noise_key)
        return jax.tree.map(lambda w, g: w - self.learning_rate.astype(w.dtype) * g, params, estimate), state

    @abc.abstractmethod
    def _trial(self, params: PyTree, objective: Objective, batch_key: PRNGKeyArray, noise_key: PRNGKeyArray) -> PyTree:
        """An estimate of the gradient."""
