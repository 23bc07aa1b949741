r"""A balanced unit that learns a direction: w' = a (β − a w), a' = w·(β − a w), |w| = a."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array
from ._decay_integral import decay_integral
from ._safe_sqrt import safe_sqrt


@jax.jit
def balanced_bernoulli(
    t: ArrayLike, first: Float[ArrayLike, " in"], target: Float[ArrayLike, " in"]
) -> tuple[Float[Array, " in"], Float[Array, ""]]:
    r"""The solution of $\dot w = a(\beta - aw)$, $\dot a = w\cdot(\beta - aw)$ from $w_0$ and $a_0 = \lVert w_0\rVert$.

    It is a Bernoulli equation: $v = (w, a)$ obeys $\dot v = (F - \tfrac12\lVert v\rVert^2)v$ with a constant $F$. The
    product $aw$ approaches the target $\beta$, unless $w_0$ points exactly away from it; a start along $\beta$ makes
    $a^2$ logistic.

    **Arguments:**

    - `t`: the time, a scalar, non-negative, possibly infinite.
    - `first`: $w_0$, shape `(in,)`; zero stays zero.
    - `target`: $\beta$, shape `(in,)`; zero makes everything decay.

    **Returns:**

    $w$ and $a$ at time `t`. Nothing overflows at late times, and a nearly opposite start keeps its digits.
    """
    w0, beta = as_float_array("first", first), as_float_array("target", target)
    beta = beta.astype(w0.dtype)
    # Late enough for every limit, and 0 · ∞ is avoided.
    t = jnp.minimum(jnp.asarray(t, w0.dtype), jnp.finfo(w0.dtype).max ** 0.5)
    s, a0 = safe_sqrt(beta @ beta), safe_sqrt(w0 @ w0)
    unit = beta / jnp.where(s == 0, 1.0, s)
    along = w0 @ unit
    across = w0 - along * unit
    square = across @ across
    # a0 ± along, by a0² − along² = |across|² where they would cancel; the one that grows, and the one that decays.
    whole = a0 + jnp.abs(along)
    rest = square / jnp.where(whole == 0, 1.0, whole)
    grows = jnp.where(along < 0, rest, whole) / 2**0.5
    decays = -jnp.where(along < 0, whole, rest) / 2**0.5
    decay, spent = jnp.exp(-s * t), decay_integral(2 * s, t)
    shrunk = jnp.sqrt(1 + t * square + decays**2 * spent)
    opposite = grows == 0
    early, late = jnp.where(opposite, 1.0, decay * shrunk), jnp.where(opposite, 1.0, grows)
    # √(early² + late² spent), whose squares may not vanish.
    scale = lax.stop_gradient(jnp.maximum(early, late * jnp.sqrt(spent)))
    size = scale * jnp.sqrt((early / scale) ** 2 + (late / scale) ** 2 * spent)
    a = (grows - decays * decay**2) / (2**0.5 * size)
    w = unit * (grows + decays * decay**2) / (2**0.5 * size) + across * decay / size
    lost = -decays * decay / (2**0.5 * shrunk)
    return jnp.where(opposite, -lost * unit, w), jnp.where(opposite, lost, a)
