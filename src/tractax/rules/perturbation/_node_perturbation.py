"""Learning by shaking outputs and watching the loss."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from ...core import AbstractFiniteTask, AbstractSampledTask, Objective
from ..descent._batch_loss import draw_batch
from ._perturbation import AbstractPerturbation


class NodePerturbation(AbstractPerturbation):
    r"""Steps $-\eta\,[\ell(y + \xi) - \ell(y)]\,\nabla_\theta(\xi\cdot y)/\sigma^2$, $\xi\sim\mathcal N(0, \sigma^2I)$.

    The outputs $y$ are shaken, independently for every example, and those that happened to lower the loss $\ell$ of the
    example are reinforced. For a linear layer, $\xi\,x^\top$ is all that its weights need to know; deeper networks hand
    $\xi$ back to their inner weights as they would a gradient. The loss itself is never differentiated. The mean of a
    step is one of gradient descent, up to $O(\sigma^2)$; its scatter grows with the number of outputs.

    The task must be a `tx.AbstractSampledTask` whose batches have a leading axis of examples in every array, and whose
    `batch_loss` calls the model, which returns one array.

    **Arguments:**

    - `learning_rate`: $\eta > 0$, also the flow time of a step; may be an array under `vmap`.
    - `noise_scale`: $\sigma > 0$.
    - `batch_size`: the number of examples drawn afresh at each step, over which steps are averaged, or `None` for all
      examples of a `tx.AbstractFiniteTask`.
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

    def estimate(
        self,
        params: PyTree,
        objective: Objective,
        batch: PyTree,
        noise: Callable[[PyTree, Array], Array],
        sources: PyTree,
    ) -> PyTree:
        r"""The estimate of the gradient from one perturbation of the outputs of every example.

        **Arguments:**

        - `params`, `objective`: as in `step`.
        - `batch`: examples of the task.
        - `noise`: a function of a source and an output, to $\xi/\sigma$ of the shape of the output.
        - `sources`: one for each example, along the leading axes of its arrays; keys or the noise itself.
        """
        task = objective.task
        assert isinstance(task, AbstractSampledTask)

        def loss(change: Callable[[Array, Array], Array], params: PyTree, example: PyTree, source: PyTree) -> Array:
            def altered(output: Array) -> Array:
                return change(output, noise(source, output))

            single = jax.tree.map(lambda x: x[None, ...], example)
            return task.batch_loss(_Altered(objective.model(params), altered), single)

        def losses(change: Callable[[Array, Array], Array]) -> Array:
            return jax.vmap(lambda example, source: loss(change, params, example, source))(batch, sources)

        def shake(output: Array, noise: Array) -> Array:
            return output + self.noise_scale.astype(output.dtype) * noise

        rewards = losses(shake) - losses(lambda output, noise: output)
        rewards = rewards / self.noise_scale.astype(rewards.dtype)

        def reinforced(params: PyTree) -> Array:
            def one(example: PyTree, source: PyTree, reward: Array) -> Array:
                def swap(output: Array, noise: Array) -> Array:
                    return _with_cotangent(output, reward.astype(output.dtype) * noise)

                return loss(swap, params, example, source)

            # The mean over examples; each contributes its noise, whatever its loss.
            return jnp.sum(jax.vmap(one)(batch, sources, rewards / rewards.size))

        return jax.grad(reinforced)(params)

    def _trial(self, params: PyTree, objective: Objective, batch_key: PRNGKeyArray, noise_key: PRNGKeyArray) -> PyTree:
        batch = self._batch(objective, batch_key)
        keys = jax.random.split(noise_key, jax.tree.leaves(batch)[0].shape[0])
        return self.estimate(params, objective, batch, _normal, keys)

    def _batch(self, objective: Objective, key: PRNGKeyArray) -> PyTree:
        if self.batch_size is not None:
            return draw_batch(objective, self.batch_size, key)[1]
        if not isinstance(objective.task, AbstractFiniteTask):
            raise ValueError(
                "`batch_size` must be given unless the task has finitely many examples (tx.AbstractFiniteTask); got "
                f"{type(objective.task).__name__}."
            )
        return jnp.arange(objective.task.examples)


def _normal(key: PRNGKeyArray, output: Array) -> Array:
    return jax.random.normal(key, output.shape, output.dtype)


class _Altered(eqx.Module):
    """A model with something done to its output."""

    model: PyTree
    change: Callable[[Array], Array]

    def __call__(self, *inputs: Any) -> Array:
        return self.change(self.model(*inputs))


@jax.custom_vjp
def _with_cotangent(output: Array, cotangent: Array) -> Array:
    """The output, on which a backward pass puts this cotangent instead of the one that arrives."""
    del cotangent
    return output


def _forward(output: Array, cotangent: Array) -> tuple[Array, Array]:
    return output, cotangent


def _backward(cotangent: Array, arrived: Array) -> tuple[Array, Array]:
    del arrived
    return cotangent, jnp.zeros_like(cotangent)


_with_cotangent.defvjp(_forward, _backward)
