r"""Steps no longer than the radius of convergence of cross-entropy.

A step of the wrapped rule that would move the logits by slopes $a$ is shortened by $\min(1, r\rho_a)$, where $\rho_a$ is
the smallest `taylor_radius_bound` of the examples, as a fraction of the step. A heuristic: beyond the radius the Taylor
polynomials of the loss mean nothing, but the loss itself remains finite, and it may fall.

Source: Sao 2026 (arXiv 2603.13552).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective, check_positive
from ._softmax_ghosts import logits_along, radius_bound


class RadiusLimit(AbstractStepRule[Any]):
    """Another rule, whose steps are shortened to a fraction of the radius of convergence of cross-entropy.

    The rule's state, such as momentum, does not know of it, and time counts steps as the wrapped rule does. A step costs
    one more pass forwards, a Jacobian-vector product of the logits.

    **Arguments:**

    - `rule`: any step rule, such as `tx.GradientDescent(10.0)`.
    - `logits`: from a model to the logits of all examples, classes along the last axis; such as `task.logits`.
    - `fraction`: $r > 0$; at 1, no logit moves against another by more than π in a step.

    **Raises:**

    `ValueError` for a rule of another kind, or a fraction that is not positive.
    """

    rule: AbstractStepRule
    logits: Callable
    fraction: Float[Array, ""]

    def __init__(self, rule: PyTree, logits: Callable, fraction: ArrayLike = 1.0):
        if not isinstance(rule, AbstractStepRule):
            raise ValueError(f"`rule` must be a step rule, such as tx.GradientDescent; got {type(rule).__name__}.")
        if not callable(logits):
            raise ValueError(f"`logits` must be a function from a model to the logits; got {logits!r}.")
        self.rule = rule
        self.logits = logits
        self.fraction = check_positive("fraction", fraction, scalar=True)

    @property
    def time_per_step(self) -> Float[Array, ""]:
        """That of the wrapped rule."""
        return self.rule.time_per_step

    @property
    def random(self) -> bool:
        """Whether the wrapped rule is."""
        return self.rule.random

    def init(self, params: PyTree) -> Any:
        """The state of the wrapped rule."""
        return self.rule.init(params)

    def step(self, params: PyTree, state: Any, objective: Objective, *, key: PRNGKeyArray | None) -> tuple[PyTree, Any]:
        """One step, possibly shortened."""
        proposed, state = self.rule.step(params, state, objective, key=key)
        update = jax.tree.map(jnp.subtract, proposed, params)
        _, slopes = logits_along(self.logits, objective.model(params), update)
        reach = self.fraction.astype(slopes.dtype) * jnp.min(radius_bound(slopes))
        part = jnp.minimum(reach, 1.0)

        def shortened(w: Array, new: Array, change: Array) -> Array:
            return jnp.where(part < 1, w + part.astype(w.dtype) * change, new)

        return jax.tree.map(shortened, params, proposed, update), state
