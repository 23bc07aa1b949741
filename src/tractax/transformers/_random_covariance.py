r"""Where training ends when every prompt has a covariance of its own.

Set-up. As in `LinearAttentionFlow` with one head and isotropic tasks, but inputs and query of a prompt have the random
covariance $\Lambda = \operatorname{diag}(\lambda_1, \dots, \lambda_d)$ with independent eigenvalues. The loss is
$\tfrac12\mathbb E(\hat y - w\cdot x_q)^2$, and the flow ends at

$$A = \big(\mathbb E\,\Gamma\Lambda^2\big)^{-1}\,\mathbb E\Lambda^2,\qquad
\Gamma = (1 + \tfrac1N)\Lambda + \tfrac1N(\operatorname{tr}\Lambda + \sigma^2)I.$$

One map has to serve all covariances, so that the loss does not vanish as prompts grow longer: linear attention then does
not learn in context.

Source: Zhang, Frei and Bartlett 2023, arXiv 2306.09927.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array, check_matrix, check_positive, require


def random_covariance_limit(
    moments: Float[ArrayLike, "3 inputs"], length: ArrayLike, *, noise_variance: ArrayLike = 0.0
) -> tuple[Float[Array, " inputs"], Float[Array, ""]]:
    r"""The diagonal of the effective map after training, and the loss that is left.

    **Arguments:**

    - `moments`: $\mathbb E\lambda_i$, $\mathbb E\lambda_i^2$ and $\mathbb E\lambda_i^3$, one a row; exponential
      eigenvalues of mean one have 1, 2 and 6.
    - `length`: $N \ge 1$, the number of examples in a prompt, possibly infinite.
    - `noise_variance`: $\sigma^2$, of the labels.

    **Returns:**

    `(map, loss)`.

    **Raises:**

    `ValueError` for a length below one, or numbers that are no moments of positive eigenvalues.
    """
    moments = check_positive("moments", check_matrix("moments", moments, (3, None)))
    first, second, third = moments
    # Of positive numbers, E λ² ≥ (E λ)² and E λ E λ³ ≥ (E λ²)², up to rounding.
    slack = 1 + 100 * jnp.finfo(first.dtype).eps
    possible = (second * slack >= first**2) & (first * third * slack >= second**2)
    message = "`moments` must be the first three moments of positive eigenvalues, one eigenvalue a column."
    first = require(first, jnp.all(possible), message)
    length = as_float_array("length", length).astype(first.dtype)
    message = f"`length` must be one number of at least 1; got {length}."
    length = require(length, length.ndim == 0 and length >= 1, message)
    noise = check_positive("noise_variance", noise_variance, zero=True, scalar=True).astype(first.dtype)
    others = jnp.sum(first) - first
    cost = (1 + 1 / length) * third + (third + second * (others + noise)) / length
    return second / cost, jnp.sum(first - second**2 / cost) / 2
