r"""At which learning rate stochastic gradient descent leaves an interpolating minimum.

Set-up. A model with one output, at parameters $\theta_*$ that fit all $n$ examples exactly; loss
$\tfrac1{2n}\sum_i(y_i - f(x_i))^2$. With the gradients $a_i = \partial f(x_i)/\partial\theta$ the Hessian is
$H = \tfrac1n\sum_i a_ia_i^\top$. One step of SGD with learning rate $\eta$ on a batch of $B$ examples, drawn with
replacement, moves a small displacement $\delta$ from the minimum by $\delta\leftarrow(I - \tfrac\eta B\sum_{i\in
\text{batch}}a_ia_i^\top)\,\delta$. Hence its second moment $C = \mathbb E[\delta\delta^\top]$ obeys, exactly,

$$C \leftarrow C - \eta\,(HC + CH) + \eta^2\,D_B(C), \qquad
D_B(C) = \tfrac1B\,\tfrac1n\sum_i a_ia_i^\top C\,a_ia_i^\top + \bigl(1 - \tfrac1B\bigr)\,HCH.$$

This map preserves positive matrices, so its largest eigenvalue is its spectral radius. On the range of $H$ (the minimum
is flat in all other directions, where nothing moves) it is a contraction below the threshold

$$\eta^* = \min_C \frac{2\operatorname{tr}\,CHC}{\operatorname{tr}\,C\,D_B(C)},$$

a generalised eigenvalue problem over symmetric matrices. Full-batch descent is $B\to\infty$, with $\eta^* =
2/\lambda_{\max}(H)$. Time is counted in steps.

Stability is meant in mean square. A single run may stay near the minimum above $\eta^*$: rare runs carry the mean.

Source: Wu and Su 2023, arXiv 2305.17490.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import check_matrix, check_positive, require

# Symmetric matrices of this size have 1830 free entries; a dense eigenproblem of that size takes seconds.
_LARGEST = 60


def per_example_gradients(model: PyTree, inputs: Float[ArrayLike, "examples in"]) -> Float[Array, "examples parameters"]:
    """The gradient of a model's output with respect to its parameters, for each input.

    **Arguments:**

    - `model`: an Equinox module with one output; its floating-point arrays are the parameters.
    - `inputs`: one example a row.

    **Returns:**

    $a_i$, one row for each example; parameters in the order of `jax.tree.leaves`.

    **Raises:**

    `ValueError` if the model returns more than one number.
    """
    inputs = check_matrix("inputs", inputs)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)

    def output(flat: Array, x: Array) -> Array:
        out = eqx.combine(unravel(flat), static)(x)
        if out.size != 1:
            raise ValueError(f"`model` must return one number for each example; got shape {out.shape}.")
        return jnp.reshape(out, ())

    return jax.vmap(jax.grad(output), in_axes=(None, 0))(flat, inputs)


def sgd_moment_step(
    gradients: Float[ArrayLike, "examples parameters"],
    moment: Float[ArrayLike, "parameters parameters"],
    learning_rate: ArrayLike,
    batch_size: int | None = None,
) -> Float[Array, "parameters parameters"]:
    r"""The second moment of the displacement after one step, from that before it.

    **Arguments:**

    - `gradients`: $a_i$ at the minimum, one row for each example, as `per_example_gradients` returns them.
    - `moment`: $C = \mathbb E[\delta\delta^\top]$; only its symmetric part counts.
    - `learning_rate`: $\eta$.
    - `batch_size`: $B$, examples drawn with replacement; `None` for the full loss.
    """
    a = check_matrix("gradients", gradients)
    moment = check_matrix("moment", moment, (a.shape[1], a.shape[1])).astype(a.dtype)
    moment = (moment + moment.T) / 2
    eta = check_positive("learning_rate", learning_rate).astype(a.dtype)
    noise = _noise(batch_size)
    n = a.shape[0]
    projected = a @ moment
    drift = a.T @ projected / n
    powers = jnp.sum(projected * a, axis=1)
    diffusion = noise * (a.T * powers[None, :]) @ a / n + (1 - noise) * a.T @ (projected @ a.T) @ a / n**2
    after = moment - eta * (drift + drift.T) + eta**2 * diffusion
    return (after + after.T) / 2


def sgd_growth(
    gradients: Float[ArrayLike, "examples parameters"], learning_rate: ArrayLike, batch_size: int | None = None
) -> Float[Array, ""]:
    r"""The factor by which $\mathbb E[\delta\delta^\top]$, and with it the mean loss, finally grows in every step.

    The spectral radius of the map of `sgd_moment_step` on the range of $H$; below 1 the minimum is stable.

    **Arguments:**

    - `gradients`: $a_i$ at the minimum, one row for each example; at most 60 examples or 60 parameters.
    - `learning_rate`: $\eta$.
    - `batch_size`: $B$, examples drawn with replacement; `None` for the full loss.

    **Raises:**

    `ValueError` if there are too many examples and parameters, or all gradients vanish.
    """
    a = _check_gradients(gradients)
    eta = check_positive("learning_rate", learning_rate).astype(a.dtype)
    noise = _noise(batch_size)
    pairs = _Pairs(jax.lax.stop_gradient(a))
    step = jax.lax.stop_gradient(eta)
    diagonal = 1 - step * pairs.sums + step**2 * (1 - noise) * pairs.products
    matrix = jnp.diag(jnp.where(pairs.inside, diagonal, 0.0)) + step**2 * noise * pairs.fourth_moments()
    c = pairs.symmetric(jnp.linalg.eigh(matrix)[1][:, -1])
    # The eigenvalue is stationary in its eigenvector, so its quotient has the right derivative, and twice the digits.
    first, second = _quadratic_forms(a @ pairs.basis, c, noise)
    return 1 + (eta**2 * second - eta * first) / jnp.sum(c**2)


def sgd_threshold(gradients: Float[ArrayLike, "examples parameters"], batch_size: int | None = None) -> Float[Array, ""]:
    r"""$\eta^*$, the largest learning rate at which SGD is stable in mean square; exact.

    **Arguments:**

    - `gradients`: $a_i$ at the minimum, one row for each example; at most 60 examples or 60 parameters.
    - `batch_size`: $B$, examples drawn with replacement; `None` for the full loss, with the threshold
      $2/\lambda_{\max}(H)$.

    **Raises:**

    `ValueError` if there are too many examples and parameters, or all gradients vanish.
    """
    a = _check_gradients(gradients)
    noise = _noise(batch_size)
    pairs = _Pairs(jax.lax.stop_gradient(a))
    sums = jnp.where(pairs.inside, pairs.sums, 1.0)
    scale = jnp.where(pairs.inside, 1 / jnp.sqrt(sums), 0.0)
    matrix = jnp.diag((1 - noise) * pairs.products / sums) + noise * (
        scale[:, None] * pairs.fourth_moments() * scale[None, :]
    )
    c = pairs.symmetric(scale * jnp.linalg.eigh(matrix)[1][:, -1])
    first, second = _quadratic_forms(a @ pairs.basis, c, noise)
    return first / second


class ThresholdBounds(eqx.Module):
    r"""Upper bounds on the stability threshold $\eta^*$ that cost no eigenvalue problem of second moments.

    **Attributes:**

    - `moments`: $2\operatorname{tr}H\,/\,(\tfrac1B\mathbb E\lVert a\rVert^4 + (1 - \tfrac1B)\operatorname{tr}H^2)$;
      at $B = 1$ attained exactly if all gradients have one length.
    - `trace`: $2B/\operatorname{tr}H$, never below `moments`; infinite for the full loss.
    - `full_batch`: $2/\lambda_{\max}(H)$, the threshold of gradient descent.
    """

    moments: Float[Array, ""]
    trace: Float[Array, ""]
    full_batch: Float[Array, ""]


def sgd_threshold_bounds(
    gradients: Float[ArrayLike, "examples parameters"], batch_size: int | None = None
) -> ThresholdBounds:
    """Upper bounds on `sgd_threshold`, for any number of examples and parameters.

    **Arguments:**

    - `gradients`: $a_i$ at the minimum, one row for each example.
    - `batch_size`: $B$, examples drawn with replacement; `None` for the full loss.
    """
    a = _check_nonzero(gradients)
    noise = _noise(batch_size)
    n, p = a.shape
    powers = jnp.sum(a**2, axis=1)
    gram = (a @ a.T if n <= p else a.T @ a) / n
    trace = jnp.mean(powers)
    moments = 2 * trace / (noise * jnp.mean(powers**2) + (1 - noise) * jnp.sum(gram**2))
    by_trace = jnp.full_like(trace, jnp.inf) if batch_size is None else 2 * batch_size / trace
    return ThresholdBounds(moments, by_trace, 2 / jnp.linalg.eigvalsh(gram)[-1])


def sgd_l1_bound(learning_rate: ArrayLike, batch_size: int) -> Float[Array, ""]:
    r"""$B/(2\eta)$: the largest $\lVert\beta\rVert_1$ of a diagonal linear network at a minimum where SGD is stable.

    For $f(x) = \sum_j(u_j^2 - v_j^2)\,x_j$ and features of unit second moment, $\operatorname{tr}H = 4(\lVert u\rVert^2 +
    \lVert v\rVert^2) \ge 4\lVert\beta\rVert_1$, while stability needs $\eta \le 2B/\operatorname{tr}H$.

    **Arguments:**

    - `learning_rate`: $\eta$.
    - `batch_size`: $B$, examples drawn with replacement.
    """
    _noise(batch_size)
    return batch_size / (2 * check_positive("learning_rate", learning_rate))


class _Pairs:
    """Symmetric matrices on the range of H, in the orthonormal basis made of pairs of its eigenvectors."""

    def __init__(self, a: Array):
        n, p = a.shape
        left, s, vt = jnp.linalg.svd(a / jnp.sqrt(n).astype(a.dtype), full_matrices=False)
        kept = s > max(n, p) * jnp.finfo(a.dtype).eps * s[0]
        s = jnp.where(kept, s, 0.0)
        rows, columns = np.triu_indices(s.shape[0])
        self.rows, self.columns = rows, columns
        self.basis = vt.T
        self.inside = kept[rows] & kept[columns]
        self.sums = s[rows] ** 2 + s[columns] ** 2
        self.products = s[rows] ** 2 * s[columns] ** 2
        self.weights = jnp.where(rows == columns, 1.0, jnp.sqrt(2.0)).astype(a.dtype)
        coordinates = left * s[None, :]
        # Entries of a aᵀ, each over √n already twice: one more √n makes their Gram matrix a mean.
        self.features = jnp.sqrt(n).astype(a.dtype) * (
            coordinates[:, rows] * coordinates[:, columns] * self.weights[None, :]
        )

    def fourth_moments(self) -> Array:
        """The matrix of C ↦ mean of a aᵀ C a aᵀ."""
        return self.features.T @ self.features

    def symmetric(self, coordinates: Array) -> Array:
        """The matrix with these coordinates."""
        size = self.basis.shape[1]
        half = jnp.zeros((size, size), coordinates.dtype)
        half = half.at[self.rows, self.columns].set(coordinates * self.weights / 2)
        return half + half.T


def _quadratic_forms(a: Array, c: Array, noise: float) -> tuple[Array, Array]:
    """tr C(HC + CH) and tr C D_B(C)."""
    n = a.shape[0]
    first = 2 * jnp.sum((a @ c) ** 2) / n
    gram = a @ c @ a.T
    return first, noise * jnp.sum(jnp.diagonal(gram) ** 2) / n + (1 - noise) * jnp.sum(gram**2) / n**2


def _noise(batch_size: int | None) -> float:
    if batch_size is None:
        return 0.0
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be a whole number of at least 1, or None for the full loss; got {batch_size}."
        )
    return 1 / batch_size


def _check_nonzero(gradients: ArrayLike) -> Array:
    a = check_matrix("gradients", gradients)
    return require(a, jnp.any(a != 0), "`gradients` must not all vanish: the loss is then flat.")


def _check_gradients(gradients: ArrayLike) -> Array:
    a = _check_nonzero(gradients)
    if min(a.shape) > _LARGEST:
        raise ValueError(
            f"`gradients` must have at most {_LARGEST} examples or at most {_LARGEST} parameters, since second moments "
            f"grow with the square of the smaller number; got shape {a.shape}. See sgd_threshold_bounds."
        )
    return a
