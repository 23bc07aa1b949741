"""Linear regression from the second moments of the data."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree, Real

from ..core import AbstractTask, as_float_array, check_matrix, check_psd, require
from ._network import DeepLinear
from ._whitening import Whitening, whiten


class LinearTask(AbstractTask):
    r"""Mean squared error of a linear map, $L = \tfrac12\,\mathbb E\lVert y - W x\rVert^2$.

    It depends on the data through second moments only, so no samples are kept. Up to the constant `floor`, the loss is
    $\tfrac12\operatorname{tr}\,(W - W_*)\,\Sigma_{xx}\,(W - W_*)^\top$; for whitened inputs,
    $\tfrac12\lVert W - \Sigma_{yx}\rVert_F^2$.

    **Arguments:**

    - `cross_covariance`: $\Sigma_{yx} = \mathbb E[y x^\top]$, shape `(out, in)`.
    - `input_covariance`: $\Sigma_{xx} = \mathbb E[x x^\top]$, shape `(in, in)`, positive semi-definite; `None` says that
      the inputs are whitened, $\Sigma_{xx} = I$.
    - `target_power`: $\mathbb E\lVert y\rVert^2$, which only sets the constant `floor`; `None` for a floor of zero.

    **Raises:**

    `ValueError` for wrong shapes, NaN, an input covariance that is not positive semi-definite, or a cross-covariance
    with directions in which the inputs do not vary.
    """

    optimum: Float[Array, "out in"]
    input_covariance: Float[Array, "in in"] | None
    floor: Float[Array, ""]
    whitening: Whitening | None

    def __init__(
        self,
        cross_covariance: Float[ArrayLike, "out in"],
        input_covariance: Float[ArrayLike, "in in"] | None = None,
        *,
        target_power: ArrayLike | None = None,
        whitening: Whitening | None = None,
    ):
        cross = check_matrix("cross_covariance", cross_covariance)
        if input_covariance is None:
            self.input_covariance = None
            self.optimum = cross
        else:
            covariance = check_psd("input_covariance", input_covariance, cross.shape[1]).astype(cross.dtype)
            self.input_covariance = covariance
            optimum = _solve(cross, covariance)
            missed = jnp.max(jnp.abs(optimum @ covariance - cross))
            rounding = jnp.sqrt(jnp.finfo(cross.dtype).eps) * jnp.max(jnp.abs(cross))
            self.optimum = require(
                optimum,
                missed <= rounding,
                "`cross_covariance` must vanish in every direction in which `input_covariance` does; it does not.",
            )
        if target_power is None:
            self.floor = jnp.zeros((), cross.dtype)
        else:
            power = jnp.asarray(target_power, cross.dtype)
            floor = (power - jnp.sum(self.optimum * cross)) / 2
            rounding = 1e-3 * power if cross.dtype == jnp.float32 else 1e-10 * power
            floor = require(floor, floor >= -rounding, "`target_power` must be at least what the inputs explain.")
            self.floor = jnp.maximum(floor, 0.0)
        self.whitening = whitening

    @classmethod
    def from_data(
        cls,
        X: Real[ArrayLike, "examples in"],
        Y: Real[ArrayLike, "examples out"] | Real[ArrayLike, " examples"],
        *,
        whiten_inputs: bool = True,
        center: bool = False,
    ) -> "LinearTask":
        """The task of a data set; averages are over its examples.

        **Arguments:**

        - `X`: inputs, one example a row.
        - `Y`: targets, one example a row; a vector counts as one column.
        - `whiten_inputs`: replace the inputs by their whitened coordinates, `task.whitening(x)`. Directions in which the
          inputs do not vary are dropped, so the network then has as many inputs as the rank of `X`.
        - `center`: subtract the means of inputs and targets first.

        **Raises:**

        `ValueError` for wrong shapes, NaN, or inputs that do not vary at all.
        """
        X = check_matrix("X", X)
        Y = as_float_array("Y", Y)
        Y = check_matrix("Y", Y[:, None] if Y.ndim == 1 else Y, (X.shape[0], None)).astype(X.dtype)
        if center:
            Y = Y - jnp.mean(Y, axis=0, keepdims=True)
        whitening = whiten(X, center=center) if whiten_inputs else None
        if whitening is not None:
            inputs = jax.vmap(whitening)(X)
        else:
            inputs = X - jnp.mean(X, axis=0, keepdims=True) if center else X
        examples = X.shape[0]
        covariance = None if whiten_inputs else _moderate("X", inputs.T @ inputs / examples)
        power = _moderate("Y", jnp.sum(Y**2) / examples)
        return cls(Y.T @ inputs / examples, covariance, target_power=power, whitening=whitening)

    @property
    def whitened(self) -> bool:
        """Whether the inputs have unit covariance."""
        return self.input_covariance is None

    @property
    def cross_covariance(self) -> Float[Array, "out in"]:
        """$\\Sigma_{yx}$."""
        return self.optimum if self.input_covariance is None else self.optimum @ self.input_covariance

    def gradient_of_map(self, product: Float[Array, "out in"]) -> Float[Array, "out in"]:
        """The gradient of the loss with respect to the map itself, $W\\Sigma_{xx} - \\Sigma_{yx}$."""
        error = product - self.optimum
        return error if self.input_covariance is None else error @ self.input_covariance

    def loss_of_map(self, product: Float[Array, "out in"]) -> Float[Array, ""]:
        """The loss of a linear map."""
        error = product - self.optimum
        if self.input_covariance is None:
            return jnp.sum(error**2) / 2 + self.floor
        return jnp.sum(error * (error @ self.input_covariance)) / 2 + self.floor

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of a `DeepLinear` network, or of any other model that is linear in its input."""
        return self.loss_of_map(linear_map(model, self.optimum.shape[1]))


def _moderate(name: str, moment: Array) -> Array:
    return require(moment, jnp.all(jnp.isfinite(moment)), f"`{name}` must be smaller; its squares overflow.")


@jax.jit
def _solve(cross: Float[Array, "out in"], covariance: Float[Array, "in in"]) -> Float[Array, "out in"]:
    """The W of least norm with W Σxx = Σyx; units of the inputs matter to rounding only if Σxx is singular."""
    units = jnp.sqrt(jnp.diagonal(covariance))
    units = jnp.where(units == 0, 1.0, units)
    correlation = covariance / (units[:, None] * units[None, :])
    regular = jnp.linalg.eigvalsh(correlation)[0] > 10 * units.size * jnp.finfo(units.dtype).eps
    scaled = (cross / units[None, :]) @ jnp.linalg.pinv(correlation, hermitian=True) / units[None, :]
    return jnp.where(regular, scaled, cross @ jnp.linalg.pinv(covariance, hermitian=True))


def linear_map(model: PyTree, n_in: int) -> Float[Array, "out in"]:
    """The matrix of a linear model."""
    if isinstance(model, DeepLinear):
        return model.product
    return jax.vmap(model, out_axes=1)(jnp.eye(n_in, dtype=_dtype(model)))


def _dtype(model: PyTree):
    return jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
