r"""Diagnostics of unstable training of transformers, and what is done against it.

Attention logits that grow until attention is all or nothing, and output logits that drift, are two ways in which small
transformers fail at large learning rates. A layer norm of queries and keys bounds the former, $|q\cdot k|/\sqrt d \le
\sqrt d$; a penalty $c\,(\ln Z)^2$ on the partition function of the softmax, the z-loss, holds the latter. The sensitivity
to the learning rate measures the effect of either in one number.

Source: Wortsman et al. 2023, arXiv 2309.14322.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array, check_finite, check_positive


def learning_rate_sensitivity(final_losses: ArrayLike, initial_loss: ArrayLike) -> Float[Array, ""]:
    r"""The mean over learning rates of $\min(\ell(\eta), \ell_0) - \min_\eta\ell(\eta)$: 0 if the rate does not matter.

    **Arguments:**

    - `final_losses`: $\ell(\eta)$ at the end of training, shape `(rates,)`, for rates with equal ratios (three decades in
      the paper). What is not finite counts as $\ell_0$.
    - `initial_loss`: $\ell_0$, before training.

    **Returns:**

    The sensitivity, in units of the loss.

    **Raises:**

    `ValueError` for anything but a row of losses, or an initial loss that is not finite.
    """
    losses, start = as_float_array("final_losses", final_losses), as_float_array("initial_loss", initial_loss)
    if losses.ndim != 1 or losses.shape[0] == 0 or start.ndim != 0:
        raise ValueError(
            "`final_losses` must have shape (rates,), and `initial_loss` be a number; got shapes "
            f"{losses.shape} and {start.shape}."
        )
    start = check_finite("initial_loss", start).astype(losses.dtype)
    capped = jnp.where(jnp.isfinite(losses), jnp.minimum(losses, start), start)
    return jnp.mean(capped - jnp.min(capped))


def layer_norm(x: Float[Array, "... size"]) -> Float[Array, "... size"]:
    """Mean zero and variance one over the last axis, without gain or bias; zeros stay zeros."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)


def attention_logits(
    queries: Float[Array, "... tokens size"], keys: Float[Array, "... others keysize"], *, qk_norm: bool = False
) -> Float[Array, "... tokens others"]:
    r"""$q\cdot k/\sqrt d$ for all pairs; their largest absolute value is what to watch.

    **Arguments:**

    - `queries`, `keys`: $d$ numbers for each token, leading axes alike.
    - `qk_norm`: whether both pass a layer norm first, after which no logit exceeds $\sqrt d$.

    **Returns:**

    The logits, `[..., query, key]`.
    """
    if queries.shape[-1] != keys.shape[-1] or queries.shape[:-2] != keys.shape[:-2]:
        raise ValueError(f"`queries` and `keys` must agree but for tokens; got shapes {queries.shape} and {keys.shape}.")
    if qk_norm:
        queries, keys = layer_norm(queries), layer_norm(keys)
    return jnp.einsum("...ti,...si->...ts", queries, keys) / queries.shape[-1] ** 0.5


def z_loss(logits: Float[Array, "... classes"], coefficient: ArrayLike = 1e-4) -> Float[Array, "..."]:
    r"""$c\,(\ln Z)^2$ with $Z = \sum_ke^{l_k}$, to be added to the cross-entropy.

    **Arguments:**

    - `logits`: $l$, along the last axis.
    - `coefficient`: $c \ge 0$.

    **Raises:**

    `ValueError` for a negative coefficient.
    """
    coefficient = check_positive("coefficient", coefficient, zero=True, scalar=True).astype(logits.dtype)
    return coefficient * jax.nn.logsumexp(logits, axis=-1) ** 2
