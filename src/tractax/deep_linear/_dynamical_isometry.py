r"""Spectra of products of random matrices: why orthogonal weights train fast at any depth and Gaussian ones do not.

Set-up. A linear network with $L$ square $N\times N$ layers at initialisation, $W = W_L\cdots W_1$, which is also its
Jacobian. The squared singular values of $W$ have

- for orthogonal layers: all the value 1, at any depth and size (dynamical isometry);
- for real Gaussian layers with variance $1/N$, as $N\to\infty$: the Fuss–Catalan law, with moments
  $\mathbb E\,\tfrac1N\operatorname{tr}(WW^\top)^k \to \tfrac1{Lk+1}\binom{(L+1)k}{k}$ (mean 1, variance $L$) on
  $[0, (L+1)^{L+1}/L^L]$: most singular values vanish with depth while a few explode. Averages at finite $N$ deviate by
  $O(1/N)$.

Source: Saxe, McClelland and Ganguli 2013, arXiv 1312.6120, for the phenomenon; the law of the moments is classical in
free probability. Layers are counted by their weight matrices, $L$.
"""

import math

import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, Float

from ..core import check_count
from ._network import DeepLinear


def jacobian_singular_values(model: DeepLinear) -> Float[Array, " values"]:
    """The singular values of a network's input-output Jacobian, in decreasing order."""
    return jnp.linalg.svd(model.product, compute_uv=False)


def fuss_catalan_moment(depth: int, order: int) -> float:
    r"""$\lim_{N\to\infty}\mathbb E\,\tfrac1N\operatorname{tr}(WW^\top)^k$ for $L$ Gaussian layers of variance $1/N$.

    **Arguments:**

    - `depth`: $L \ge 1$.
    - `order`: $k \ge 0$.

    **Raises:**

    `ValueError` for numbers that are negative or not whole.
    """
    check_count("depth", depth)
    check_count("order", order, least=0)
    return math.comb((depth + 1) * order, order) / (depth * order + 1)


def fuss_catalan_edge(depth: int) -> float:
    r"""The largest squared singular value of $L$ Gaussian layers as $N\to\infty$, $(L+1)^{L+1}/L^L \approx e\,L$."""
    check_count("depth", depth)
    return (depth + 1) * (1 + 1 / depth) ** depth


def fuss_catalan_density(depth: int, points: int = 401) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    r"""The limiting density of $\ln\sigma^2$ for $L$ Gaussian layers, at points that resolve both of its ends.

    **Arguments:**

    - `depth`: $L \ge 1$.
    - `points`: how many.

    **Returns:**

    $\ln\sigma^2$, decreasing from the edge, and the density there; it integrates to one.
    """
    check_count("depth", depth)
    check_count("points", points, least=2)
    # x = sin^{L+1}((L+1)φ) / (sin φ sin^L(Lφ)) has the density sin²φ sin^{L-1}(Lφ) / (π sin^L((L+1)φ)). In logarithms,
    # since both leave the range of floating-point numbers at large depth.
    phi = (jnp.arange(points).astype(jnp.result_type(float)) + 0.5) / points * jnp.pi / (depth + 1)
    outer, inner, narrow = jnp.log(jnp.sin((depth + 1) * phi)), jnp.log(jnp.sin(depth * phi)), jnp.log(jnp.sin(phi))
    log_x = (depth + 1) * outer - narrow - depth * inner
    log_density = 2 * narrow + (depth - 1) * inner - math.log(math.pi) - depth * outer
    return log_x, jnp.exp(log_density + log_x)


def expected_log_determinant(size: int, depth: int) -> Float[Array, ""]:
    r"""$\mathbb E\ln\lvert\det W\rvert$ for $L$ Gaussian layers of variance $1/N$, exact at every size.

    **Arguments:**

    - `size`: $N \ge 1$.
    - `depth`: $L \ge 1$.
    """
    check_count("size", size)
    check_count("depth", depth)
    i = jnp.arange(1, size + 1).astype(jnp.result_type(float))
    return depth / 2 * jnp.sum(math.log(2 / size) + digamma(i / 2))
