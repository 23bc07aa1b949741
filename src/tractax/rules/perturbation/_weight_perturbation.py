"""Learning by shaking all weights and watching the loss, without gradients."""

from collections.abc import Callable

import jax
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from ...core import Objective
from ..descent._batch_loss import loss_seen
from ._perturbation import AbstractPerturbation


class WeightPerturbation(AbstractPerturbation):
    r"""Steps $-\eta\,[L(\theta + \psi) - L(\theta)]\,\psi/\sigma^2$ with normal $\psi$ of variance $\sigma^2$.

    The loss is evaluated twice, never differentiated; both times on the same batch. The mean of a step is one of gradient
    descent, up to $O(\sigma^2)$. Its scatter grows with the number of parameters.

    **Arguments:**

    - `learning_rate`: $\eta > 0$, also the flow time of a step; may be an array under `vmap`.
    - `noise_scale`: $\sigma > 0$. The smaller, the less noise is left in the end; too small, and the difference of two
      losses is all rounding.
    - `batch_size`: `None` for the full loss, or the number of examples drawn afresh at each step.
    - `weight_decay`: $\gamma \ge 0$ of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$, whose gradient is known and added
      without noise.

    **Raises:**

    `ValueError` for numbers that are not positive, an empty batch or a negative decay.
    """

    def __init__(
        self,
        learning_rate: ArrayLike,
        noise_scale: ArrayLike,
        *,
        batch_size: PyTree = None,
        weight_decay: ArrayLike = 0.0,
    ):
        super().__init__(learning_rate, noise_scale, batch_size=batch_size, weight_decay=weight_decay)

    def estimate(self, params: PyTree, loss: Callable[[PyTree], Array], noise: PyTree) -> PyTree:
        r"""The estimate of the gradient from one perturbation, $\psi$ = `noise_scale` times `noise`."""
        change = loss(_moved(params, noise, self.noise_scale)) - loss(params)
        return _scaled(noise, change / self.noise_scale.astype(change.dtype))

    def _trial(self, params: PyTree, objective: Objective, batch_key: PRNGKeyArray, noise_key: PRNGKeyArray) -> PyTree:
        noise = _drawn(jax.random.normal, params, noise_key)
        return self.estimate(params, loss_seen(objective, self.batch_size, batch_key), noise)


class SPSA(AbstractPerturbation):
    r"""Steps $-\eta\,[L(\theta + \sigma s) - L(\theta - \sigma s)]\,s/2\sigma$ with random signs $s_i = \pm1$.

    Simultaneous perturbation stochastic approximation with constant gains. The loss is evaluated twice, never
    differentiated; both times on the same batch. Even derivatives cancel: on a quadratic loss the mean of a step is
    exactly one of gradient descent, and nothing is left of the noise in the end.

    **Arguments:**

    - `learning_rate`: $\eta > 0$, also the flow time of a step; may be an array under `vmap`.
    - `noise_scale`: $\sigma > 0$, how far every number is moved.
    - `batch_size`: `None` for the full loss, or the number of examples drawn afresh at each step.
    - `weight_decay`: $\gamma \ge 0$ of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$, whose gradient is known and added
      without noise.

    **Raises:**

    `ValueError` for numbers that are not positive, an empty batch or a negative decay.
    """

    def __init__(
        self,
        learning_rate: ArrayLike,
        noise_scale: ArrayLike,
        *,
        batch_size: PyTree = None,
        weight_decay: ArrayLike = 0.0,
    ):
        super().__init__(learning_rate, noise_scale, batch_size=batch_size, weight_decay=weight_decay)

    def estimate(self, params: PyTree, loss: Callable[[PyTree], Array], signs: PyTree) -> PyTree:
        """The estimate of the gradient from one pair of perturbations."""
        change = loss(_moved(params, signs, self.noise_scale)) - loss(_moved(params, signs, -self.noise_scale))
        return _scaled(signs, change / (2 * self.noise_scale.astype(change.dtype)))

    def _trial(self, params: PyTree, objective: Objective, batch_key: PRNGKeyArray, noise_key: PRNGKeyArray) -> PyTree:
        signs = _drawn(jax.random.rademacher, params, noise_key)
        return self.estimate(params, loss_seen(objective, self.batch_size, batch_key), signs)


def _drawn(distribution: Callable[..., Array], params: PyTree, key: PRNGKeyArray) -> PyTree:
    """Independent numbers in the shape of the parameters."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [distribution(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def _moved(params: PyTree, direction: PyTree, length: Array) -> PyTree:
    return jax.tree.map(lambda w, z: w + length.astype(w.dtype) * z, params, direction)


def _scaled(direction: PyTree, factor: Array) -> PyTree:
    return jax.tree.map(lambda z: factor.astype(z.dtype) * z, direction)
