r"""When a tensor of rank one is learned, from small random factors: the length of the plateau.

Set-up. As in `RankOneTensorFlow`, all factors trained at one rate from weights of scale $\varepsilon\to0$.

Theory. Small factors obey $n\tau\,\dot m_a = S\,m_bm_c$, so that all $m_x^2$ grow by the same amount, and to infinity in
the time $\tfrac{n\tau}SR_F(m_a^2, m_b^2, m_c^2)$, with Carlson's elliptic integral. Where $m_am_bm_c < 0$, all of them
first fall by $\mu = \min_xm_x^2$, until the smallest changes its sign:

$$T = \frac{n\tau}S\big[2R_F(m_a^2 - \mu, m_b^2 - \mu, m_c^2 - \mu) - R_F(m_a^2, m_b^2, m_c^2)\big].$$

When they are no longer small they are equal, and rise as in `BalancedTensor`; the loss is half that of zero weights after
a further time of order $n\tau S^{-4/3}$. What is neglected falls like $\varepsilon^2\ln\varepsilon$.

Source: Singh, Moskovitz, Hill, Chan and Saxe 2024, arXiv 2404.07129, for the model; the time is derived here.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import AbstractRule, enforce
from ..rules import check_flow, no_weight_decay
from ..special import carlson_rf
from ._rank_one_tensor import check_tensor
from ._tensor_overlaps import overlaps

# Where (1 - y³)² = ½ with y = x/S^(1/3), the integral of `quintic_escape` less its pole at y = 0 and its value there.
_HALF = math.cbrt(1 - 0.5**0.5)
_RISE = (
    -1 / _HALF
    - math.log1p(-_HALF) / 3
    + math.log(1 + _HALF + _HALF**2) / 6
    - (math.atan((2 * _HALF + 1) / 3**0.5) - math.pi / 6) / 3**0.5
)


def tensor_escape_time(model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> Float[Array, ""]:
    """When the loss falls through half of what it is at zero weights, $S^2/2n$, from small factors.

    **Arguments:**

    - `model`: a `RankOneTensor`, as small as wanted.
    - `task`: a `RankOneTensorTask` of the same sizes.
    - `rule`: gradient flow, all factors at one rate.

    **Returns:**

    The time, in the rule's units. Infinite where the flow ends at zero: if two overlaps $m_x$ are zero, or the product of
    the three is negative and the smallest two are of one size.

    **Raises:**

    `ValueError` if the network does not fit the task, or the rule has rates or a weight decay.
    """
    rule = check_flow(rule, "tensor_escape_time")
    along = enforce(overlaps(check_tensor(model, task), task).along, "tensor_escape_time", (no_weight_decay(rule),))
    largest = jnp.max(jnp.abs(along))
    some = jnp.where(largest == 0, 1.0, largest)
    sizes = jnp.abs(along) / some
    smallest = jnp.argmin(sizes)
    # The smallest is zero then, for good: its infinite slope must not meet a zero.
    least = sizes[smallest]
    at_turn = jnp.where(jnp.arange(3) == smallest, 0.0, (sizes - least) * (sizes + least))
    direct, turned = carlson_rf(*(sizes**2)), 2 * carlson_rf(*at_turn)
    blow_up = jnp.where(jnp.prod(jnp.sign(along)) < 0, turned - direct, direct) / some
    strength = task.strength.astype(along.dtype)
    unit = rule.time_constant.astype(along.dtype) * task.entries / strength
    return jnp.where(largest == 0, jnp.inf, unit * (blow_up + _RISE / jnp.cbrt(strength)))
