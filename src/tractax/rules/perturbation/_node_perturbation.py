"""Learning by shaking outputs, of a network or of its layers, and watching the loss."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from ...core import AbstractFiniteTask, AbstractSampledTask, Objective, standard_normal
from ..descent._batch_loss import draw_batch
from ._perturbation import AbstractPerturbation


class NodePerturbation(AbstractPerturbation):
    r"""Steps $-\eta\,[\ell(y + \xi) - \ell(y)]\,\nabla_\theta(\xi\cdot y)/\sigma^2$, $\xi\sim\mathcal N(0, \sigma^2I)$.

    The outputs $y$ are shaken, independently for every example, and those that happened to lower the loss $\ell$ of the
    example are reinforced. For a linear layer, $\xi\,x^\top$ is all that its weights need to know; deeper networks hand
    $\xi$ back to their inner weights as they would a gradient, unless every layer is shaken by itself (`layers`): then
    each learns from its own noise and inputs alone. The loss itself is never differentiated. The mean of a step is one of
    gradient descent, up to $O(\sigma^2)$; its scatter grows with the number of outputs that are shaken.

    The task must be a `tx.AbstractSampledTask` whose batches have a leading axis of examples in every array, and whose
    `batch_loss` calls the model, which returns one array.

    **Arguments:**

    - `learning_rate`: $\eta > 0$, also the flow time of a step; may be an array under `vmap`.
    - `noise_scale`: $\sigma > 0$.
    - `batch_size`: the number of examples drawn afresh at each step, over which steps are averaged, or `None` for all
      examples of a `tx.AbstractFiniteTask`.
    - `layers`: `None` to shake the outputs of the model, or a function from a model to those of its layers whose outputs
      are shaken, each called once for an example: `lambda model: model.layers` shakes all pre-activations of an
      `equinox.nn.MLP`. Parameters on which none of them depends do not learn.
    - `weight_decay`: $\gamma \ge 0$ of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$, whose gradient is known and added
      without noise.

    **Raises:**

    `ValueError` for numbers that are not positive, an empty batch, a negative decay, or layers that are no function.
    """

    layers: Callable | None = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        noise_scale: ArrayLike,
        *,
        batch_size: PyTree = None,
        layers: PyTree = None,
        weight_decay: ArrayLike = 0.0,
    ):
        super().__init__(learning_rate, noise_scale, batch_size=batch_size, weight_decay=weight_decay)
        if layers is not None and not callable(layers):
            raise ValueError(f"`layers` must be a function from a model to its layers, or None; got {layers!r}.")
        self.layers = layers

    def estimate(
        self,
        params: PyTree,
        objective: Objective,
        batch: PyTree,
        noise: Callable[[PyTree, Array], Array],
        sources: PyTree,
    ) -> PyTree:
        r"""The estimate of the gradient from one perturbation of what every example puts out.

        **Arguments:**

        - `params`, `objective`: as in `step`.
        - `batch`: examples of the task.
        - `noise`: a function of a source and an output, to $\xi/\sigma$ of the shape of the output.
        - `sources`: one for each example, along the leading axes of its arrays; keys or the noise itself. With `layers`,
          a tuple of such, one for each layer.
        """
        task = objective.task
        assert isinstance(task, AbstractSampledTask)

        def loss(change: Callable[[Array, Array], Array], params: PyTree, example: PyTree, source: PyTree) -> Array:
            single = jax.tree.map(lambda x: x[None, ...], example)
            return task.batch_loss(self._altered(objective.model(params), change, noise, source), single)

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
        examples = jax.tree.leaves(batch)[0].shape[0]
        if self.layers is None:
            keys = jax.random.split(noise_key, examples)
        else:
            count = len(self._layers(objective.model(params)))
            keys = tuple(jax.random.split(key, examples) for key in jax.random.split(noise_key, count))
        return self.estimate(params, objective, batch, _normal, keys)

    def _layers(self, model: PyTree) -> tuple:
        found = () if self.layers is None else tuple(self.layers(model))
        if not found or not all(callable(layer) for layer in found):
            raise ValueError(f"`layers` must return the layers of the model, each of them callable; got {found!r}.")
        return found

    def _altered(
        self,
        model: PyTree,
        change: Callable[[Array, Array], Array],
        noise: Callable[[PyTree, Array], Array],
        source: PyTree,
    ) -> "_Altered":
        """The model, or its layers, with outputs changed according to the noise on them."""

        def changed(layer: PyTree, source: PyTree) -> _Altered:
            return _Altered(layer, lambda output: change(output, noise(source, output)))

        if self.layers is None:
            return changed(model, source)
        altered = tuple(changed(layer, own) for layer, own in zip(self._layers(model), source, strict=True))
        model = eqx.tree_at(lambda model: tuple(self._layers(model)), model, altered)
        # What comes after the layers hands nothing back to them.
        return _Altered(model, lambda output: change(output, jnp.zeros_like(output)))

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
    return standard_normal(key, output.shape, output.dtype)


class _Altered(eqx.Module):
    """A model, or a layer, with something done to its output."""

    model: PyTree
    change: Callable[[Array], Array]

    def __call__(self, *inputs: Any, **options: Any) -> Array:
        return self.change(self.model(*inputs, **options))


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
