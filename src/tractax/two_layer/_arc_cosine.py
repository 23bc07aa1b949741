r"""Averages of rectifiers over Gaussian inputs: the arc-cosine kernel and its gradient.

For $x\sim\mathcal N(0, I)$, $\sigma(z) = \max(z, 0)$ and the angle $\theta$ between $w$ and $v$,

$$J(w, v) = \mathbb E\,\sigma(w\cdot x)\sigma(v\cdot x)
= \frac{|w||v|}{2\pi}\big[\sin\theta + (\pi-\theta)\cos\theta\big],$$
$$g(w, v) = \partial_wJ = \mathbb E\,1[w\cdot x>0]\,\sigma(v\cdot x)\,x
= \frac1{2\pi}\big[(\pi-\theta)v + |v|\sin\theta\,\hat w\big].$$

Angles come from the part of $v$ across $w$ by `arctan2`, never from an arc cosine, so that nothing is lost at parallel
and opposite vectors; there $J$ has two derivatives, which are the ones found here. At $w = 0$ the gradient is taken as
zero, as $\sigma'(0) = 0$ would have it.

Source: Cho and Saul 2009; Tian 2017, arXiv 1703.00560.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..special import safe_sqrt


@jax.custom_jvp
def arc_cosine(w: Float[ArrayLike, " in"], v: Float[ArrayLike, " in"]) -> Float[Array, ""]:
    r"""$J(w, v) = \mathbb E\,\sigma(w\cdot x)\,\sigma(v\cdot x)$ over standard normal inputs.

    **Arguments:**

    - `w`, `v`: two vectors, shape `(in,)`; zero is allowed.

    **Returns:**

    The average. Its derivatives are `arc_cosine_gradient`, also at parallel and opposite vectors.
    """
    w, v = jnp.asarray(w), jnp.asarray(v)
    across, angle = _across(w, v)
    return (safe_sqrt(w @ w) * across + (math.pi - angle) * (w @ v)) / (2 * math.pi)


@arc_cosine.defjvp
def _arc_cosine_jvp(primals, tangents):
    (w, v), (dw, dv) = primals, tangents
    return arc_cosine(w, v), arc_cosine_gradient(w, v) @ dw + arc_cosine_gradient(v, w) @ dv


def arc_cosine_gradient(w: Float[ArrayLike, " in"], v: Float[ArrayLike, " in"]) -> Float[Array, " in"]:
    r"""$g(w, v) = \partial J/\partial w$; zero at $w = 0$.

    **Arguments:**

    - `w`, `v`: two vectors, shape `(in,)`.
    """
    w, v = jnp.asarray(w), jnp.asarray(v)
    across, angle = _across(w, v)
    gradient = ((math.pi - angle) * v + across * _direction(w)) / (2 * math.pi)
    return jnp.where(jnp.any(w != 0), gradient, 0.0)


def angle_between(w: Float[Array, " in"], v: Float[Array, " in"]) -> Float[Array, ""]:
    """The angle between two vectors, accurate also near 0 and π; π/2 if one is zero."""
    return _across(w, v)[1]


def _direction(w: Array) -> Array:
    length = safe_sqrt(w @ w)
    return w / jnp.where(length == 0, 1.0, length)


def _across(w: Array, v: Array) -> tuple[Array, Array]:
    """The length of what v has across w, |v| sin θ, and the angle."""
    unit = _direction(w)
    along = v @ unit
    rest = v - along * unit
    across = safe_sqrt(rest @ rest)
    undefined = (across == 0) & (along == 0)
    angle = jnp.arctan2(jnp.where(undefined, 1.0, across), along)
    return across, angle
