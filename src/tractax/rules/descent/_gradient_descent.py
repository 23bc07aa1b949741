"""Gradient descent and every other optax transformation."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective, check_positive
from ._batch_loss import check_batch_size, loss_seen
from ._weight_decay import check_decay, refuse_decay

Optimiser = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


class GradientDescent(AbstractStepRule[optax.OptState]):
    r"""Discrete steps with an optax optimiser, on the full loss or on mini-batches.

    One step takes the flow time `time_per_step`, by default the learning rate, so that plain descent is compared with
    its gradient flow at the same times.

    **Arguments:**

    - `learning_rate`: $\eta > 0$; may be an array under `vmap`.
    - `optimiser`: a function from a learning rate to an `optax.GradientTransformation` (`optax.sgd`, `optax.adam`,
      `functools.partial(optax.sgd, momentum=0.9)`), or a finished transformation, which is then used as it is and
      `learning_rate` only sets the time that one step takes.
    - `time_per_step`: flow time per step; `None` for the learning rate.
    - `batch_size`: `None` for the full loss, or the number of examples drawn afresh at each step; `train` then needs a
      `key` and the task must be an `AbstractSampledTask`.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of a penalty $\tfrac\gamma2\lVert\theta\rVert^2$ on the loss, which
      the optimiser sees as part of it. Decay beside the gradient, decoupled from how an optimiser scales that, is
      `optax.adamw` or `optax.add_decayed_weights`.

    **Raises:**

    `ValueError` for a learning rate or time that is not positive, another kind of optimiser, an empty batch or a negative
    decay.
    """

    learning_rate: Float[Array, ""]
    time_per_step: Float[Array, ""]
    weight_decay: Float[Array, ""]
    optimiser: Optimiser = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        optimiser: Optimiser = optax.sgd,
        *,
        time_per_step: ArrayLike | None = None,
        batch_size: int | None = None,
        weight_decay: ArrayLike = 0.0,
    ):
        if not isinstance(optimiser, optax.GradientTransformation) and not callable(optimiser):
            raise ValueError(
                "`optimiser` must be an optax transformation or a function from a learning rate to one, such as "
                f"optax.adam; got {optimiser!r}."
            )
        batch_size = check_batch_size(batch_size)
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        step = learning_rate if time_per_step is None else time_per_step
        self.time_per_step = check_positive("time_per_step", step, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.optimiser = optimiser
        self.batch_size = batch_size

    def _transformation(self, params: PyTree) -> optax.GradientTransformation:
        if isinstance(self.optimiser, optax.GradientTransformation):
            return self.optimiser
        dtype = jnp.result_type(*jax.tree.leaves(params))
        made = self.optimiser(self.learning_rate.astype(dtype))
        if not isinstance(made, optax.GradientTransformation):
            raise ValueError(f"`optimiser` must return an optax transformation; got {type(made).__name__}.")
        return made

    @property
    def random(self) -> bool:
        """Whether a step draws a mini-batch."""
        return self.batch_size is not None

    def init(self, params: PyTree) -> optax.OptState:
        """The optimiser's state."""
        with jax.numpy_dtype_promotion("standard"):
            return self._transformation(params).init(params)

    def step(
        self, params: PyTree, state: optax.OptState, objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, optax.OptState]:
        """One update of the optimiser."""
        loss = loss_seen(objective.penalised(self.weight_decay), self.batch_size, key)
        value, gradient = jax.value_and_grad(loss)(params)
        # Line searches ask for the loss itself. Many optimisers rely on promotion.
        transformation = optax.with_extra_args_support(self._transformation(params))
        with jax.numpy_dtype_promotion("standard"):
            updates, state = transformation.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
            return optax.apply_updates(params, updates), state


def plain_descent(rule: PyTree, theory: str, *, batches: bool | None = None) -> GradientDescent | None:
    """The rule of a theory, if it is `tx.GradientDescent` with `optax.sgd`; `None` if it is another one.

    **Arguments:**

    - `rule`: what the user passed.
    - `theory`: the name of the theory, for the error.
    - `batches`: whether its steps must be on mini-batches, or must not; `None` for either.

    **Raises:**

    `ValueError` for weight decay.
    """
    if not isinstance(rule, GradientDescent) or rule.optimiser is not optax.sgd:
        return None
    return refuse_decay(rule, theory) if batches in (None, rule.random) else None
