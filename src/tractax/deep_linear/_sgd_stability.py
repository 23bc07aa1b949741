r"""At which learning rate stochastic gradient descent leaves an interpolating minimum.

Set-up. A model with one output, at parameters $\theta_*$ that fit all $n$ examples exactly; loss
$\tfrac1{2n}\sum_i(y_i - f(x_i))^2$. With the gradients $a_i = \partial f(x_i)/\partial\theta$ the Hessian is
$H = \tfrac1n\sum_i a_ia_i^\top$. One step of SGD with learning rate $\eta$ on a batch of $B$ examples moves a small
displacement $\delta$ from the minimum by $\delta\leftarrow(I - \tfrac\eta B\sum_{i\in\text{batch}}a_ia_i^\top)\,\delta$.
Hence its second moment $C = \mathbb E[\delta\delta^\top]$ obeys, exactly,

$$C \leftarrow C - \eta\,(HC + CH) + \eta^2\,D_B(C), \qquad
D_B(C) = c_B\,\tfrac1n\sum_i a_ia_i^\top C\,a_ia_i^\top + (1 - c_B)\,HCH,$$

with $c_B = 1/B$ for batches drawn with replacement, $c_B = (n - B)/(B(n - 1))$ without.

This map preserves positive matrices, so its largest eigenvalue is its spectral radius. On the range of $H$ (the minimum
is flat in all other directions, where nothing moves) it is a contraction below the threshold

$$\eta^* = \min_C \frac{2\operatorname{tr}\,CHC}{\operatorname{tr}\,C\,D_B(C)},$$

a generalised eigenvalue problem over symmetric matrices. Full-batch descent is $c_B = 0$, with $\eta^* =
2/\lambda_{\max}(H)$. Time is counted in steps.

Evaluation. In the eigenbasis of $H$ the problem has as many rows as $H$ has rank, at most the number of examples;
$D_B$ is applied to a matrix without being formed, at the cost of two products of a matrix of gradients.

Stability is meant in mean square. A single run may stay near the minimum above $\eta^*$: rare runs carry the mean.

Source: Wu and Su 2023, arXiv 2305.17490.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import check_matrix, check_positive, require
from ._leading_matrix import leading_matrix


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
    return _gradients(model, inputs)


@eqx.filter_jit
def _gradients(model: PyTree, inputs: Array) -> Array:
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
    *,
    replace: bool = True,
) -> Float[Array, "parameters parameters"]:
    r"""The second moment of the displacement after one step, from that before it.

    **Arguments:**

    - `gradients`: $a_i$ at the minimum, one row for each example, as `per_example_gradients` returns them.
    - `moment`: $C = \mathbb E[\delta\delta^\top]$; only its symmetric part counts.
    - `learning_rate`: $\eta$.
    - `batch_size`: $B$; `None` for the full loss.
    - `replace`: whether the examples of a batch are drawn with replacement.
    """
    a = check_matrix("gradients", gradients)
    moment = check_matrix("moment", moment, (a.shape[1], a.shape[1])).astype(a.dtype)
    moment = (moment + moment.T) / 2
    eta = check_positive("learning_rate", learning_rate).astype(a.dtype)
    n = a.shape[0]
    noise = batch_noise(batch_size, n, replace=replace)
    projected = a @ moment
    drift = a.T @ projected / n
    powers = jnp.sum(projected * a, axis=1)
    diffusion = noise * (a.T * powers[None, :]) @ a / n + (1 - noise) * a.T @ (projected @ a.T) @ a / n**2
    after = moment - eta * (drift + drift.T) + eta**2 * diffusion
    return (after + after.T) / 2


def sgd_growth(
    gradients: Float[ArrayLike, "examples parameters"],
    learning_rate: ArrayLike,
    batch_size: int | None = None,
    *,
    replace: bool = True,
) -> Float[Array, ""]:
    r"""The factor by which $\mathbb E[\delta\delta^\top]$, and with it the mean loss, finally grows in every step.

    The spectral radius of the map of `sgd_moment_step` on the range of $H$; below 1 the minimum is stable.

    **Arguments:**

    - `gradients`: $a_i$ at the minimum, one row for each example.
    - `learning_rate`: $\eta$.
    - `batch_size`: $B$; `None` for the full loss.
    - `replace`: whether the examples of a batch are drawn with replacement.

    **Raises:**

    `ValueError` if all gradients vanish, or a batch without replacement is larger than the data.
    """
    a = _check_nonzero(gradients)
    eta = check_positive("learning_rate", learning_rate).astype(a.dtype)
    noise = batch_noise(batch_size, a.shape[0], replace=replace)
    return _found(*_largest_growth(a, eta, jnp.asarray(noise, a.dtype), noise == 0))


def sgd_threshold(
    gradients: Float[ArrayLike, "examples parameters"], batch_size: int | None = None, *, replace: bool = True
) -> Float[Array, ""]:
    r"""$\eta^*$, the largest learning rate at which SGD is stable in mean square; exact.

    **Arguments:**

    - `gradients`: $a_i$ at the minimum, one row for each example.
    - `batch_size`: $B$; `None` for the full loss, with the threshold $2/\lambda_{\max}(H)$.
    - `replace`: whether the examples of a batch are drawn with replacement.

    **Raises:**

    `ValueError` if all gradients vanish, or a batch without replacement is larger than the data.
    """
    a = _check_nonzero(gradients)
    noise = batch_noise(batch_size, a.shape[0], replace=replace)
    return _found(*_least_threshold(a, jnp.asarray(noise, a.dtype), noise == 0))


class ThresholdBounds(eqx.Module):
    r"""Upper bounds on the stability threshold $\eta^*$ that cost no eigenvalue problem of second moments.

    **Attributes:**

    - `moments`: $2\operatorname{tr}H\,/\,(c_B\,\mathbb E\lVert a\rVert^4 + (1 - c_B)\operatorname{tr}H^2)$;
      at $B = 1$ attained exactly if all gradients have one length.
    - `trace`: $2\,/\,\operatorname{tr}H\,(c_B + (1 - c_B)/\operatorname{rank}H)$, never below `moments`.
    - `full_batch`: $2/\lambda_{\max}(H)$, the threshold of gradient descent.
    """

    moments: Float[Array, ""]
    trace: Float[Array, ""]
    full_batch: Float[Array, ""]


def sgd_threshold_bounds(
    gradients: Float[ArrayLike, "examples parameters"], batch_size: int | None = None, *, replace: bool = True
) -> ThresholdBounds:
    """Upper bounds on `sgd_threshold`, for any number of examples and parameters.

    **Arguments:**

    - `gradients`: $a_i$ at the minimum, one row for each example.
    - `batch_size`: $B$; `None` for the full loss.
    - `replace`: whether the examples of a batch are drawn with replacement.
    """
    a = _check_nonzero(gradients)
    n, p = a.shape
    noise = batch_noise(batch_size, n, replace=replace)
    powers = jnp.sum(a**2, axis=1)
    gram = (a @ a.T if n <= p else a.T @ a) / n
    curvatures = jnp.linalg.eigvalsh(gram)
    rank = jnp.sum(curvatures > max(n, p) * jnp.finfo(a.dtype).eps * curvatures[-1]).astype(a.dtype)
    trace = jnp.mean(powers)
    moments = 2 * trace / (noise * jnp.mean(powers**2) + (1 - noise) * jnp.sum(gram**2))
    return ThresholdBounds(moments, 2 / (trace * (noise + (1 - noise) / rank)), 2 / curvatures[-1])


def sgd_l1_bound(learning_rate: ArrayLike, batch_size: int) -> Float[Array, ""]:
    r"""$B/(2\eta)$: the largest $\lVert\beta\rVert_1$ of a diagonal linear network at a minimum where SGD is stable.

    For $f(x) = \sum_j(u_j^2 - v_j^2)\,x_j$ and features of unit second moment, $\operatorname{tr}H = 4(\lVert u\rVert^2 +
    \lVert v\rVert^2) \ge 4\lVert\beta\rVert_1$, while stability needs $\eta \le 2B/\operatorname{tr}H$.

    **Arguments:**

    - `learning_rate`: $\eta$.
    - `batch_size`: $B$, examples drawn with replacement.
    """
    batch_noise(batch_size, 1)
    return batch_size / (2 * check_positive("learning_rate", learning_rate))


def batch_noise(batch_size: int | None, examples: int, *, replace: bool = True) -> float:
    """$c_B$, the share of one example's noise that is left in the mean of a batch."""
    if batch_size is None:
        return 0.0
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be a whole number of at least 1, or None for the full loss; got {batch_size}."
        )
    if replace:
        return 1 / batch_size
    if batch_size > examples:
        raise ValueError(f"`batch_size` must be at most the {examples} examples without replacement; got {batch_size}.")
    return (examples - batch_size) / (batch_size * max(examples - 1, 1))


class _Modes:
    """Symmetric matrices on the range of H, in its eigenbasis."""

    def __init__(self, a: Array):
        n, p = a.shape
        left, s, vt = jnp.linalg.svd(a, full_matrices=False)
        kept = s > max(n, p) * jnp.finfo(a.dtype).eps * s[0]
        s = jnp.where(kept, s, 0.0)
        self.examples, self.curvatures = left * s[None, :], s**2 / n
        self.basis, self.kept = vt.T, kept
        self.inside = kept[:, None] & kept[None, :]
        self.sums = self.curvatures[:, None] + self.curvatures[None, :]
        self.identity = jnp.diag(kept.astype(a.dtype))

    def along(self, mode: Array) -> Array:
        """The displacement along one eigenvector."""
        return jnp.diag(jax.nn.one_hot(mode, self.kept.shape[0], dtype=self.curvatures.dtype))

    def diffusion(self, c: Array, noise: Array) -> Array:
        """D_B(C)."""
        x = self.examples
        powers = jnp.sum(x @ c * x, axis=1)
        single = (x * powers[:, None]).T @ x / x.shape[0]
        return noise * single + (1 - noise) * self.curvatures[:, None] * c * self.curvatures[None, :]


@eqx.filter_jit
def _largest_growth(a: Array, eta: Array, noise: Array, full_batch: bool) -> tuple[Array, Array]:
    """The growth, and whether its second moment was found."""
    # In units of the largest entry, whose fourth power may underflow.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(a)))
    a, eta = a / size, eta * size**2
    modes, step = _Modes(jax.lax.stop_gradient(a)), jax.lax.stop_gradient(eta)
    if full_batch:
        fastest = jnp.argmax(jnp.where(modes.kept, jnp.abs(1 - step * modes.curvatures), -1.0))
        c, found = modes.along(fastest), jnp.asarray(True)
    else:

        def grow(c: Array) -> Array:
            # One more than the growth, which is zero for what a single step removes altogether.
            return (2 - step * modes.sums) * c + step**2 * modes.diffusion(c, noise)

        c, found = leading_matrix(grow, modes.identity)
    # The eigenvalue is stationary in its eigenvector, so its quotient has the right derivative, and twice the digits.
    first, second = _quadratic_forms(a @ modes.basis, c, noise)
    return 1 + (eta**2 * second - eta * first) / jnp.sum(c**2), found


@eqx.filter_jit
def _least_threshold(a: Array, noise: Array, full_batch: bool) -> tuple[Array, Array]:
    """The threshold, and whether its second moment was found."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(a)))
    a = a / size
    modes = _Modes(jax.lax.stop_gradient(a))
    if full_batch:
        c, found = modes.along(jnp.argmax(modes.curvatures)), jnp.asarray(True)
    else:
        scale = jnp.where(modes.inside, 1 / jnp.sqrt(jnp.where(modes.inside, modes.sums, 1.0)), 0.0)
        c, found = leading_matrix(lambda c: scale * modes.diffusion(scale * c, noise), modes.identity)
        c = scale * c
    first, second = _quadratic_forms(a @ modes.basis, c, noise)
    return first / second / size**2, found


def _found(value: Array, found: Array) -> Array:
    return require(value, found, "`gradients` are too ill-conditioned: what grows fastest was not found.")


def _quadratic_forms(a: Array, c: Array, noise: Array) -> tuple[Array, Array]:
    """tr C(HC + CH) and tr C D_B(C)."""
    n = a.shape[0]
    first = 2 * jnp.sum((a @ c) ** 2) / n
    gram = a @ c @ a.T
    return first, noise * jnp.sum(jnp.diagonal(gram) ** 2) / n + (1 - noise) * jnp.sum(gram**2) / n**2


def _check_nonzero(gradients: ArrayLike) -> Array:
    a = check_matrix("gradients", gradients)
    return require(a, jnp.any(a != 0), "`gradients` must not all vanish: the loss is then flat.")
