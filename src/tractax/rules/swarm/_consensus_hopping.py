"""Consensus hopping: implicit steps of gradient descent by looking around, without gradients."""

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective, check_count, check_key, check_positive, standard_normal
from ._consensus_flow import consensus_of


class ConsensusHopping(AbstractStepRule[None]):
    r"""$\theta \leftarrow x_\alpha$ of samples from $\mathcal N(\theta, s^2I)$, weighted by $e^{-\alpha L}$.

    The loss is evaluated, never differentiated. With many samples, one step is a step of gradient descent of length
    $\alpha s^2$, implicit and softened: exactly an implicit Euler step where the loss is quadratic. One step takes the
    flow time $\alpha s^2$.

    **Arguments:**

    - `width`: $s > 0$, how far each step looks, in every trainable number.
    - `inverse_temperature`: $\alpha > 0$.
    - `samples`: how many points a step evaluates the loss at.

    **Raises:**

    `ValueError` for a width or temperature that is not positive, or no samples.
    """

    width: Float[Array, ""]
    inverse_temperature: Float[Array, ""]
    samples: int = eqx.field(static=True)

    def __init__(self, width: ArrayLike, inverse_temperature: ArrayLike, samples: int):
        self.width = check_positive("width", width, scalar=True)
        alpha = check_positive("inverse_temperature", inverse_temperature, scalar=True)
        self.inverse_temperature = alpha.astype(self.width.dtype)
        self.samples = check_count("samples", samples)

    @property
    def time_per_step(self) -> Float[Array, ""]:
        r"""$\alpha s^2$."""
        return self.inverse_temperature * self.width**2

    @property
    def random(self) -> bool:
        """Every step draws its samples."""
        return True

    def init(self, params: PyTree) -> None:
        """Nothing to remember."""
        del params

    def step(self, params: PyTree, state: None, objective: Objective, *, key: PRNGKeyArray | None) -> tuple[PyTree, None]:
        """One hop."""
        check_key(key)
        leaves, structure = jax.tree.flatten(params)

        def around(key: PRNGKeyArray, x: Array) -> Array:
            return x[None, ...] + self.width.astype(x.dtype) * standard_normal(key, (self.samples, *x.shape), x.dtype)

        keys = jax.random.split(key, len(leaves))
        samples = jax.tree.unflatten(structure, [around(key, x) for key, x in zip(keys, leaves, strict=True)])
        losses = jax.vmap(objective.loss)(samples)
        return consensus_of(samples, losses, self.inverse_temperature), state
