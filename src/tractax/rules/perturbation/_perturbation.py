"""What rules have in common that learn by trial."""

import abc

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective, check_key, check_positive
from ..descent._batch_loss import check_batch_size
from ..descent._weight_decay import check_decay


class AbstractPerturbation(AbstractStepRule[None]):
    r"""Steps along an estimate of the gradient from how the loss changes under random perturbations.

    **Arguments:**

    - `learning_rate`: $\eta > 0$, also the flow time of a step; may be an array under `vmap`.
    - `noise_scale`: $\sigma > 0$. The smaller, the less noise is left in the end; too small, and the difference of two
      losses is all rounding.
    - `batch_size`: `None` for all examples, or the number of examples drawn afresh at each step.
    - `weight_decay`: $\gamma \ge 0$ of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$, whose gradient is known and added
      without noise.

    **Raises:**

    `ValueError` for numbers that are not positive, an empty batch or a negative decay.
    """

    learning_rate: Float[Array, ""]
    noise_scale: Float[Array, ""]
    weight_decay: Float[Array, ""]
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        noise_scale: ArrayLike,
        *,
        batch_size: PyTree = None,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.noise_scale = check_positive("noise_scale", noise_scale, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.batch_size = check_batch_size(batch_size)

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
        rate = self.learning_rate

        def moved(w: Array, g: Array) -> Array:
            return w - rate.astype(w.dtype) * (g + self.weight_decay.astype(w.dtype) * w)

        return jax.tree.map(moved, params, estimate), state

    @abc.abstractmethod
    def _trial(self, params: PyTree, objective: Objective, batch_key: PRNGKeyArray, noise_key: PRNGKeyArray) -> PyTree:
        """An estimate of the gradient."""
