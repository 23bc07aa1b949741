r"""LANTON: steps of a fixed norm for each layer, shorter for layers whose gradients are noisier.

For a layer $\ell$ with gradients $G_t$,

$$B \leftarrow \beta_1B + (1 - \beta_1)G_t,\quad H \leftarrow \beta_2H + (1 - \beta_2)\lVert G_t - G_{t-1}\rVert_*^2,\quad
a_\ell = \frac{\alpha}{\sqrt{\alpha^2 + H}},$$

and the step is $\eta\sqrt{a_\ell/\max_ja_j}$ along the steepest direction of unit norm: $-UV^\top$ for a matrix
$B = U\Sigma V^\top$, in the spectral norm, and $-\mathrm{sign}\,B$ for every other array, in the largest-entry norm.
$\lVert\cdot\rVert_*$ is the dual norm, the sum of singular values or of absolute entries. Layers of equal noise take
equal steps.

Written after the idea of the paper, not its code: constants and the norms of particular layers may differ there.

Source: Hao et al. 2025, arXiv 2510.14009.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ._adam_moments import check_decay, check_number, running_mean, zeros


class LantonState(NamedTuple):
    """Steps taken, the mean gradient, the noise of each array, and the gradient of the step before."""

    count: Int[Array, ""]
    first: PyTree
    noise: PyTree
    previous: PyTree


def lanton(
    learning_rate: PyTree, b1: PyTree = 0.95, b2: PyTree = 0.9, alpha: PyTree = 1.0
) -> optax.GradientTransformation:
    r"""LANTON as an optax transformation, for `tx.GradientDescent(learning_rate, tx.rules.lanton)`.

    **Arguments:**

    - `learning_rate`: $\eta$, a number, an array or an optax schedule: the norm of the step of the least noisy layer.
    - `b1`, `b2`: $\beta_1, \beta_2$, the decay of the mean gradient and of the noise, from 0, below 1.
    - `alpha`: $\alpha > 0$, the size of noise above which steps shrink.

    **Raises:**

    `ValueError` for a decay outside of its range or an `alpha` that is not positive.
    """
    b1, b2 = check_decay("b1", b1), check_decay("b2", b2)
    alpha = check_number("alpha", alpha)

    def init(params: PyTree) -> LantonState:
        noise = jax.tree.map(lambda p: jnp.zeros((), p.dtype), params)
        return LantonState(jnp.zeros((), jnp.int32), zeros(params), noise, zeros(params))

    def update(gradients: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, LantonState]:
        del params
        first = running_mean(state.first, gradients, b1)
        # Before the second gradient there is nothing to tell noise from.
        seen = state.count > 0
        change = jax.tree.map(lambda g, p: jnp.where(seen, _dual_norm(g - p) ** 2, 0.0), gradients, state.previous)
        noise = running_mean(state.noise, change, b2)
        trust = jax.tree.map(lambda h: alpha / jnp.sqrt(alpha**2 + h), noise)
        most = jnp.max(jnp.stack(jax.tree.leaves(trust)))
        updates = jax.tree.map(lambda a, b: jnp.sqrt(a / most) * _steepest(b), trust, first)
        return updates, LantonState(state.count + 1, first, noise, gradients)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))


def _dual_norm(g: Array) -> Float[Array, ""]:
    return jnp.sum(jnp.linalg.svd(g, compute_uv=False)) if g.ndim == 2 else jnp.sum(jnp.abs(g))


def _steepest(b: Array) -> Array:
    if b.ndim != 2:
        return jnp.sign(b)
    u, s, vt = jnp.linalg.svd(b, full_matrices=False)
    # Directions in which there is no gradient take no part.
    kept = s > max(b.shape) * jnp.finfo(b.dtype).eps * s[0]
    return (u * kept.astype(b.dtype)[None, :]) @ vt
