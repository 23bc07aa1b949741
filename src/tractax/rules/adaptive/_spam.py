r"""SPAM: Adam with clipped spikes and moments that are forgotten now and then.

A gradient with $g^2 > \theta v$, $v$ the second moment before the step, counts as $\mathrm{sign}(g)\sqrt{\theta v}$, and
every $\Delta T$ steps both moments start from zero. For some steps after that nothing is clipped, and the step grows as
$1 - 0.99\cdot\tfrac12(1 + \cos\pi s/T)$ with the steps $s < T$ since the reset. Bias correction goes on counting from the
beginning of training, as in the authors' code: right after a late reset a constant gradient asks for a step that is
$(1 - \beta_1)/\sqrt{1 - \beta_2}$ times Adam's, which the factor 0.01 at $s = 0$ hides.

Source: Huang, Zhu, Jin, Liu, Wang, Liu 2025 (arXiv 2501.06842).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ...core import check_count
from ._adam_moments import check_decay, check_number, running_mean, without_bias, zeros


class SpamState(NamedTuple):
    """Steps taken, and the two moments."""

    count: Int[Array, ""]
    first: PyTree
    second: PyTree


def spam(
    learning_rate: PyTree,
    b1: PyTree = 0.9,
    b2: PyTree = 0.999,
    eps: PyTree = 1e-8,
    *,
    threshold: PyTree = 5000.0,
    interval: PyTree = 500,
    warmup: PyTree = 150,
    unclipped: PyTree = 20,
) -> optax.GradientTransformation:
    r"""SPAM as an optax transformation, for `tx.GradientDescent(learning_rate, tx.rules.spam)`.

    **Arguments:**

    - `learning_rate`: a number, an array or an optax schedule.
    - `b1`, `b2`: $\beta_1, \beta_2$, the decay of the two moments, from 0, below 1.
    - `eps`: added to the root of the second moment, not negative.
    - `threshold`: $\theta > 0$.
    - `interval`: $\Delta T$, steps from one reset to the next.
    - `warmup`: $T$, steps after each reset in which the step grows, 0 for none.
    - `unclipped`: steps at the start and after each reset in which nothing is clipped.

    **Raises:**

    `ValueError` for a decay outside of its range, a threshold that is not positive, or a count that is no whole number.
    """
    b1, b2 = check_decay("b1", b1), check_decay("b2", b2)
    eps = check_number("eps", eps, zero=True)
    threshold = check_number("threshold", threshold)
    interval = check_count("interval", interval)
    warmup, unclipped = check_count("warmup", warmup, least=0), check_count("unclipped", unclipped, least=1)

    def init(params: PyTree) -> SpamState:
        return SpamState(jnp.zeros((), jnp.int32), zeros(params), zeros(params))

    def update(gradients: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, SpamState]:
        del params
        since, resets = state.count % interval, state.count >= interval
        first, second = jax.tree.map(lambda m: jnp.where(resets & (since == 0), 0.0, m), (state.first, state.second))

        def clipped(g: Array, v: Array) -> Array:
            bound = jnp.sqrt(threshold * v)
            return jnp.where(since >= unclipped, jnp.clip(g, -bound, bound), g)

        gradients = jax.tree.map(clipped, gradients, second)
        count = state.count + 1
        first = running_mean(first, gradients, b1)
        second = running_mean(second, jax.tree.map(jnp.square, gradients), b2)

        def direction(m: Array, v: Array) -> Array:
            size = jnp.sqrt(v) + eps
            phase = jnp.pi * since.astype(m.dtype) / max(warmup, 1)
            growing = 1 - 0.99 * (1 + jnp.cos(phase)) / 2
            return jnp.where(resets & (since < warmup), growing, 1.0) * m / jnp.where(size == 0, 1.0, size)

        updates = jax.tree.map(direction, without_bias(first, b1, count), without_bias(second, b2, count))
        return updates, SpamState(count, first, second)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))
