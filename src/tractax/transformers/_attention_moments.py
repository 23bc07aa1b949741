r"""The exact mean squared error of linear attention with any weights, from moments of Gaussian prompts.

Let $p_h$ be the last row of $W^V_h$ and $Q_h$ the columns of $W^{KQ}_h$ that act on inputs. The prediction is a cubic
form in the prompt,

$$\hat y = \underbrace{\frac1N\sum_{i,h}(p_h\cdot z_i)(z_i^\top Q_hx_q)}_{\text{examples } z_i = (x_i, y_i)} +
\underbrace{\frac1N\sum_h(p_h\cdot x_q)(x_q^\top Q_hx_q)}_{\text{the query attends to itself}}.$$

Given the task $w$, the examples are independent with covariance $C(w)$, a polynomial of second degree in $w$, so that
averages over examples, query and task are sums over pairings, all written out below.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._linear_attention import AbstractLinearAttention


def mean_squared_error(
    model: AbstractLinearAttention,
    *,
    covariance: Float[Array, "inputs inputs"],
    task_covariance: Float[Array, "inputs inputs"],
    query_covariance: Float[Array, "inputs inputs"],
    noise_variance: Float[Array, ""],
    length: int | float,
) -> Float[Array, ""]:
    r"""$\mathbb E(\hat y - w\cdot x_q)^2$."""
    lam, omega, query = covariance, task_covariance, query_covariance
    # Last rows of the values, and the columns of keys and queries that meet the query: parts of inputs (x) and label (y).
    px, py = model.value[:, -1, :-1], model.value[:, -1, -1]
    qx, qy = model.key_query[:, :-1, :-1], model.key_query[:, -1, :-1]
    power = jnp.sum(lam * omega) + noise_variance
    # The variance of wᵀΛw.
    variance = 2 * jnp.sum((lam @ omega) * (omega @ lam))

    # p_hᵀ C(w) Q_k = mean + linear w + square (wᵀΛw - its mean), vectors that meet x_q, for every pair of heads.
    square = py[:, None, None] * qy[None, :, :]
    mean = jnp.einsum("hi,ij,kja->hka", px, lam, qx) + power * square
    linear = jnp.einsum("h,kja,ji->hkai", py, qx, lam) + jnp.einsum("ka,hi->hkai", qy, px @ lam)
    forms = (mean, linear, square)
    swapped = tuple(jnp.swapaxes(x, 0, 1) for x in forms)
    own = tuple(jnp.einsum("hh...->...", x) for x in forms)

    def product(first: tuple[Array, ...], second: tuple[Array, ...]) -> Array:
        """The average over w and x_q of the product of two such forms."""
        means = jnp.einsum("...a,ab,...b->...", first[0], query, second[0])
        linears = jnp.einsum("...ai,ab,ij,...bj->...", first[1], query, omega, second[1])
        squares = jnp.einsum("...a,ab,...b->...", first[2], query, second[2])
        return jnp.sum(means + linears + variance * squares)

    # p_hᵀ C(w) p_k and tr(Q_hᵀ C(w) Q_k Λ_q), of the same form.
    read_square, asked_square = py[:, None] * py[None, :], qy @ query @ qy.T
    read = px @ lam @ px.T + power * read_square
    asked = jnp.einsum("hia,ij,kjb,ab->hk", qx, lam, qx, query) + power * asked_square
    read_linear = _symmetric(jnp.einsum("h,ki->hki", py, px @ lam))
    asked_linear = _symmetric(jnp.einsum("ij,hja,ab,kb->hki", lam, qx, query, qy))
    separate = jnp.einsum("hki,ij,hkj->hk", read_linear, omega, asked_linear)
    separate = jnp.sum(read * asked + separate + variance * read_square * asked_square)

    examples = product(own, own) + (product(forms, swapped) + separate) / length
    answer = jnp.einsum("ai,ab,ib->", own[1], query, omega)
    pull, of_query = _query_part(px, (qx + jnp.swapaxes(qx, 1, 2)) / 2, query)
    both, alone = own[0] @ pull / length, of_query / length**2
    return examples + 2 * both + alone - 2 * answer + jnp.sum(omega * query)


def _symmetric(x: Array) -> Array:
    """The sum over both orders of the heads."""
    return x + jnp.swapaxes(x, 0, 1)


def _query_part(p: Array, m: Array, query: Array) -> tuple[Array, Array]:
    """The averages of x f(x) and f(x)² over x_q, with f(x) = Σ_h (p_h·x) xᵀM_h x."""
    turned = m @ query
    trace = jnp.trace(turned, axis1=1, axis2=2)
    # M_h Λ_q p_k.
    image = jnp.einsum("hab,kb->hka", turned, p)
    own = jnp.einsum("hha->ha", image)
    pull = query @ jnp.sum(trace[:, None] * p + 2 * own, axis=0)
    # All pairings of the six factors, by the loops that they form.
    pairs = jnp.einsum("hab,kba->hk", turned, turned)
    loops = jnp.sum((p @ query @ p.T) * (trace[:, None] * trace[None, :] + 2 * pairs))
    chains = 4 * (trace @ p) @ query @ jnp.sum(own, axis=0)
    total = jnp.sum(own, axis=0)
    rings = 4 * (total @ query @ total + jnp.einsum("hka,ab,khb->", image, query, image))
    return pull, loops + chains + rings
