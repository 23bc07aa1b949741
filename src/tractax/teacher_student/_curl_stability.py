r"""Curl descent in two linear layers: what it conserves, and when it stays at a solution.

Set-up. Network $w_2^\top W_1x$ with $M$ hidden units and $N$ whitened inputs, target vector $a$, loss
$\tfrac12\lVert a - W_1^\top w_2\rVert^2$, and a sign for every hidden unit in each layer:

$$\tau\dot W_1 = D_1\,w_2e^\top,\qquad \tau\dot w_2 = D_2W_1e,\qquad e = a - W_1^\top w_2 .$$

Exact, at any size. Every unit conserves $\lVert W_{1j}\rVert^2 - D_{1j}D_{2j}\,w_{2j}^2$. At a solution ($e = 0$) the
Jacobian of the flow has the eigenvalues of $-S/\tau$, with the symmetric matrix
$S = \big(\sum_jD_{1j}w_{2j}^2\big)I + W_1^\top D_2W_1$, and zeros; the solution is stable if $S$ is positive definite.

In the limit $N\to\infty$ at $M = cN$, entries of $W_1$ of variance $g^2/N$, $\sum_jw_{2j}^2 = \rho$ and a fraction
$\alpha$ of random units flipped, $S$ is positive definite

- with flipped hidden layer ($D_2 = I$): as long as $(1 - 2\alpha)\rho + g^2(\sqrt c - 1)_+^2 > 0$;
- with flipped readout ($D_1 = I$): as long as $\rho + g^2z_-(c, \alpha) > 0$, where $z_-$ is the lower edge of the
  spectrum of $W_1^\top D_2W_1/g^2$. In terms of a number $y$ between $\max(1, \sqrt c - 1)$ and $1 + \sqrt c$,
  $z_- = -\tfrac12y\,(y^2 + 1 - c)$ and $\alpha = (y - 1)^2\big((y + 1)^2 - c\big)/(4cy)$.

Extreme eigenvalues of one sample of size $N$ are off by $O(N^{-2/3})$.

Source: Ninou, Kadmon and Cayco-Gajic 2025, arXiv 2510.02765, for the model and the question.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import check_finite, check_positive, require
from ..rules import CurlDescent, refuse_decay
from ..special import monotone_inverse
from ._two_layer_linear import TwoLayerLinear


def curl_invariants(model: PyTree, rule: CurlDescent) -> Float[Array, " hidden"]:
    r"""$\lVert W_{1j}\rVert^2 - D_{1j}D_{2j}\,w_{2j}^2$ of every hidden unit, which curl descent conserves.

    **Arguments:**

    - `model`: a `TwoLayerLinear`.
    - `rule`: with one sign for each unit (or one for all) in either layer.

    **Raises:**

    `ValueError` for another kind of model or rule.
    """
    first, second = unit_signs(model, rule)
    return jnp.sum(model.hidden**2, axis=1) - first * second * model.readout**2


def curl_stability_matrix(model: PyTree, rule: CurlDescent) -> Float[Array, "in in"]:
    r"""$S = \big(\sum_jD_{1j}w_{2j}^2\big)I + W_1^\top D_2W_1$.

    At a solution of the task the error obeys $\tau\dot e = -Se$ to first order, so that the solution is stable if the
    lowest eigenvalue of $S$ is positive.

    **Arguments:**

    - `model`: a `TwoLayerLinear` that solves its task.
    - `rule`: with one sign for each unit (or one for all) in either layer.

    **Raises:**

    `ValueError` for another kind of model or rule.
    """
    first, second = unit_signs(model, rule)
    through_hidden = jnp.sum(first * model.readout**2) * jnp.eye(model.hidden.shape[1], dtype=model.hidden.dtype)
    return through_hidden + (model.hidden.T * second[None, :]) @ model.hidden


def hidden_flip_threshold(
    ratio: ArrayLike, *, hidden_variance: ArrayLike = 1.0, readout_norm: ArrayLike = 1.0
) -> Float[Array, ""]:
    r"""The fraction of units that may be flipped in the hidden layer, $\tfrac12 + \tfrac{g^2}{2\rho}(\sqrt c - 1)_+^2$.

    **Arguments:**

    - `ratio`: $c = M/N > 0$, hidden units over inputs.
    - `hidden_variance`: $g^2$, $N$ times the variance of the entries of $W_1$.
    - `readout_norm`: $\rho = \lVert w_2\rVert^2$.

    **Returns:**

    A fraction; one where any number of flipped units is harmless.

    **Raises:**

    `ValueError` for numbers that are not positive.
    """
    c, g_square, rho = _check_sizes(ratio, hidden_variance, readout_norm)
    return jnp.minimum(0.5 + g_square / (2 * rho) * jnp.maximum(jnp.sqrt(c) - 1, 0.0) ** 2, 1.0)


def readout_flip_threshold(
    ratio: ArrayLike, *, hidden_variance: ArrayLike = 1.0, readout_norm: ArrayLike = 1.0
) -> Float[Array, ""]:
    r"""The fraction of units that may be flipped in the readout: the $\alpha$ at which $\rho + g^2z_-(c, \alpha) = 0$.

    **Arguments:**

    - `ratio`: $c = M/N > 0$, hidden units over inputs.
    - `hidden_variance`: $g^2$, $N$ times the variance of the entries of $W_1$.
    - `readout_norm`: $\rho = \lVert w_2\rVert^2$.

    **Returns:**

    A fraction; zero where a single flipped unit makes solutions unstable, one where any number of them is harmless.

    **Raises:**

    `ValueError` for numbers that are not positive.
    """
    c, g_square, rho = _check_sizes(ratio, hidden_variance, readout_norm)
    y = monotone_inverse(lambda y: y * (y**2 + 1 - c) / 2, rho / g_square, *_ends(c))
    return jnp.minimum(_fraction(y, c), 1.0)


def flipped_edge(ratio: ArrayLike, fraction: ArrayLike) -> Float[Array, ""]:
    r"""$z_-(c, \alpha)$, the lower edge of the spectrum of $W^\top DW$ as $N\to\infty$.

    $W$ has $cN$ rows and $N$ columns with independent entries of variance $1/N$; $D$ is diagonal with signs, of which a
    fraction $\alpha$ is negative. For $\alpha = 0$ it is $(\sqrt c - 1)_+^2$; at $c < 4$ the edge tends to another
    number, $c/2 - 1$, as $\alpha\to0$: where a single negative sign puts one eigenvalue.

    **Arguments:**

    - `ratio`: $c > 0$.
    - `fraction`: $\alpha$, from 0 to 1.

    **Raises:**

    `ValueError` for numbers out of range.
    """
    c = check_positive("ratio", ratio)
    alpha = check_finite("fraction", fraction).astype(c.dtype)
    alpha = require(alpha, (alpha >= 0) & (alpha <= 1), f"`fraction` must lie between 0 and 1; got {fraction}.")
    y = monotone_inverse(lambda y: _fraction(y, c), alpha, *_ends(c))
    return jnp.where(alpha == 0, jnp.maximum(jnp.sqrt(c) - 1, 0.0) ** 2, -y * (y**2 + 1 - c) / 2)


def unit_signs(model: Any, rule: Any) -> tuple[Float[Array, " hidden"], Float[Array, " hidden"]]:
    """$D_1$ and $D_2$, one sign for every hidden unit in each layer."""
    if not isinstance(model, TwoLayerLinear):
        raise ValueError(f"`model` must be a TwoLayerLinear; got {type(model).__name__}.")
    if not isinstance(rule, CurlDescent):
        raise ValueError(f"`rule` must be CurlDescent; got {type(rule).__name__}.")
    rule = refuse_decay(rule, "invariants and stability of CurlDescent")
    hidden = model.readout.shape
    shapes = [sign.shape for sign in rule.signs]
    if len(shapes) != 2 or any(shape not in ((), hidden) for shape in shapes):
        raise ValueError(f"`rule` must have one sign for each hidden unit, {hidden}, in both layers; got {shapes}.")
    first, second = (jnp.broadcast_to(sign.astype(model.hidden.dtype), hidden) for sign in rule.signs)
    return first, second


def _check_sizes(ratio: ArrayLike, hidden_variance: ArrayLike, readout_norm: ArrayLike) -> tuple[Array, Array, Array]:
    c = check_positive("ratio", ratio)
    g_square = check_positive("hidden_variance", hidden_variance).astype(c.dtype)
    return c, g_square, check_positive("readout_norm", readout_norm).astype(c.dtype)


def _ends(c: Array) -> tuple[Array, Array]:
    """Where the fraction of flipped units is zero and one."""
    return jnp.maximum(1.0, jnp.sqrt(c) - 1), 1 + jnp.sqrt(c)


def _fraction(y: Array, c: Array) -> Array:
    return (y - 1) ** 2 * ((y + 1) ** 2 - c) / (4 * c * y)
