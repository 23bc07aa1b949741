r"""Which minima SGD can stay at: the stability of any network that fits its data.

Set-up. A network with one output that fits all $n$ examples exactly, loss $L = \tfrac1{2n}\sum_i(f(x_i) - y_i)^2$, SGD of
learning rate $\eta$ on batches of $B$ examples. With the gradients $g_i = \partial f(x_i)/\partial\theta$ the Hessian is
$H = \tfrac1n\sum_ig_ig_i^\top$. Time is counted in steps.

Theory. The second moment of small displacements obeys the linear recursion of `tractax.deep_linear.sgd_moment_step`, for
any network: it needs nothing but the $g_i$. The minimum is stable in mean square up to a learning rate that is an
eigenvalue; testing with the identity, stability implies

$$\operatorname{tr}H \le \frac{2/\eta}{c_B + (1 - c_B)/\operatorname{rank}H},\qquad
c_B = \tfrac1B\ \text{with replacement},\quad \tfrac{n-B}{B(n-1)}\ \text{without}.$$

So flat minima are stable; what flatness means for the weights is known for some networks (`diagonal_hessian_trace`,
`rectifier_hessian_trace`). Another bound needs only the noise. With $\Sigma$ the covariance of one example's gradient
$r_ig_i$, $r_i = g_i\cdot\delta$: if $\operatorname{tr}H\Sigma \ge 2\mu L\lVert H\rVert_F^2$ on average along the
iterates, stability implies $\lVert H\rVert_F \le 1/(\eta\sqrt{c_B\mu})$, which is $\sqrt{B/\mu}/\eta$ with replacement.

Source: Wu and Su 2023, arXiv 2305.17490; the bound on the trace for every batch size, and the least $\mu$ over all
displacements, are derived here.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import Assumption, check_matrix, check_positive, enforce, relative_norm, tolerance_for
from ..deep_linear import (
    DiagonalLinear,
    RegressionTask,
    ThresholdBounds,
    batch_noise,
    per_example_gradients,
    sgd_growth,
    sgd_threshold,
    sgd_threshold_bounds,
)
from ._base import check_network


class InterpolatingMinimum(eqx.Module):
    """A network that fits all its data, seen by SGD.

    Build it with `from_model`.

    **Attributes:**

    - `gradients`: $g_i$, one row for each example, the parameters in the order of `jax.tree.leaves`.
    """

    gradients: Float[Array, "examples parameters"]

    @classmethod
    def from_model(cls, model: PyTree, task: PyTree, *, check: bool = True) -> "InterpolatingMinimum":
        """The minimum at which a network is.

        **Arguments:**

        - `model`: any Equinox module with one output.
        - `task`: a `RegressionTask` that it fits exactly.
        - `check`: refuse a network that does not fit its data.

        **Raises:**

        `ValueError` for another kind of task, more than one output, or residuals that are not zero.
        """
        task = _check_task(task)
        gradients = per_example_gradients(model, task.inputs)
        if check:
            gradients = enforce(gradients, cls.__name__, cls.assumptions(model, task))
        return cls(gradients)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree) -> tuple[Assumption, ...]:
        """How far the network is from fitting its data, relative to the targets."""
        targets, residuals = _check_task(task).targets, _residuals(model, _check_task(task))
        return (Assumption("interpolation, f(x_i) = y_i", relative_norm(residuals, targets), tolerance_for(targets)),)

    @property
    def hessian_trace(self) -> Float[Array, ""]:
        r"""$\operatorname{tr}H$, the mean of $\lVert g_i\rVert^2$."""
        return jnp.sum(self.gradients**2) / self.gradients.shape[0]

    @property
    def hessian_norm(self) -> Float[Array, ""]:
        r"""$\lVert H\rVert_F$."""
        return jnp.linalg.norm(self.gradients @ self.gradients.T) / self.gradients.shape[0]

    def growth(
        self, learning_rate: ArrayLike, batch_size: int | None = None, *, replace: bool = True
    ) -> Float[Array, ""]:
        """The factor by which the mean square of a displacement, and the mean loss, finally grow in every step.

        **Arguments:**

        - `learning_rate`: $\\eta$.
        - `batch_size`: $B$; `None` for the full loss.
        - `replace`: whether the examples of a batch are drawn with replacement.
        """
        return sgd_growth(self.gradients, learning_rate, batch_size, replace=replace)

    def threshold(self, batch_size: int | None = None, *, replace: bool = True) -> Float[Array, ""]:
        """The learning rate above which SGD leaves the minimum, in mean square; exact.

        **Arguments:**

        - `batch_size`: $B$; `None` for the full loss.
        - `replace`: whether the examples of a batch are drawn with replacement.
        """
        return sgd_threshold(self.gradients, batch_size, replace=replace)

    def bounds(self, batch_size: int | None = None, *, replace: bool = True) -> ThresholdBounds:
        """Bounds on the threshold from moments of the gradients, the trace and the largest curvature.

        **Arguments:**

        - `batch_size`: $B$; `None` for the full loss.
        - `replace`: whether the examples of a batch are drawn with replacement.
        """
        return sgd_threshold_bounds(self.gradients, batch_size, replace=replace)

    @property
    def least_alignment(self) -> Float[Array, ""]:
        r"""The least $\mu = \operatorname{tr}H\Sigma/(2L\lVert H\rVert_F^2)$ over all displacements that raise the loss.

        It is zero where some displacement has no noise, as with a single example.
        """
        n, p = self.gradients.shape
        left, s, _ = jnp.linalg.svd(self.gradients, full_matrices=False)
        kept = s > max(n, p) * jnp.finfo(s.dtype).eps * s[0]
        curvatures = jnp.where(kept, s**2 / n, 0.0)
        # In units in which the loss is half the square of the displacement: the g_i are √n times the left vectors.
        unit = jnp.where(kept[None, :], left * jnp.sqrt(n).astype(s.dtype), 0.0)
        bend = jnp.sum((unit * curvatures[None, :]) ** 2, axis=1)
        noise = (unit * bend[:, None]).T @ unit / n - jnp.diag(curvatures**2)
        # Flat directions are out of the search.
        noise = noise + jnp.diag(jnp.where(kept, 0.0, jnp.sum(bend)))
        return jnp.maximum(jnp.linalg.eigvalsh(noise)[0], 0.0) / jnp.sum(curvatures**2)

    def noise_bound(
        self, batch_size: int | None = None, *, alignment: ArrayLike | None = None, replace: bool = True
    ) -> Float[Array, ""]:
        r"""$1/(\lVert H\rVert_F\sqrt{c_B\mu})$: above this learning rate noise alone makes the loss grow.

        **Arguments:**

        - `batch_size`: $B$; `None` for the full loss, without noise.
        - `alignment`: $\mu$, as `noise_alignment` measures it along a run; `None` for `least_alignment`, with which the
          bound holds for every run.
        - `replace`: whether the examples of a batch are drawn with replacement.

        **Returns:**

        The largest learning rate; infinite without noise.
        """
        mu = (
            self.least_alignment
            if alignment is None
            else check_positive("alignment", alignment, zero=True, scalar=True).astype(self.gradients.dtype)
        )
        strength = batch_noise(batch_size, self.gradients.shape[0], replace=replace) * mu
        return jnp.where(
            strength > 0, 1 / (self.hessian_norm * jnp.sqrt(jnp.where(strength > 0, strength, 1.0))), jnp.inf
        )


def noise_alignment(model: PyTree, task: PyTree) -> Float[Array, ""]:
    r"""$\mu = \operatorname{tr}H\Sigma/(2L\lVert H\rVert_F^2)$, how much the noise of SGD points along large curvature.

    $\Sigma$ is the covariance of one example's gradient, $H = \tfrac1n\sum_ig_ig_i^\top$, both at the network as it is.

    **Arguments:**

    - `model`: any Equinox module with one output.
    - `task`: a `RegressionTask`.

    **Returns:**

    One number; NaN at a loss of exactly zero, which has no noise.

    **Raises:**

    `ValueError` for another kind of task or more than one output.
    """
    task = _check_task(task)
    gradients, r = per_example_gradients(model, task.inputs), _residuals(model, task)
    n = r.shape[0]
    gram = gradients @ gradients.T / n
    squares = n * jnp.sum(gram**2, axis=1)
    noise = jnp.mean(r**2 * squares) - jnp.mean((gram @ r) ** 2)
    return noise / (jnp.mean(r**2) * jnp.sum(gram**2))


def diagonal_hessian_trace(model: PyTree, inputs: Float[ArrayLike, "examples in"]) -> Float[Array, ""]:
    r"""$\operatorname{tr}H$ of a diagonal linear network by its weights.

    $D^2\sum_k(w_{+k}^{2D-2} + w_{-k}^{2D-2})\,\overline{x_k^2}$; for two layers it is
    $4\sum_k(w_{+k}^2 + w_{-k}^2)\,\overline{x_k^2}$: stable minima have small weights.

    **Arguments:**

    - `model`: a `tractax.deep_linear.DiagonalLinear` that fits the data.
    - `inputs`: $x_i$, one example a row.

    **Raises:**

    `ValueError` for another kind of network or inputs that do not fit.
    """
    if not isinstance(model, DiagonalLinear):
        raise ValueError(f"`model` must be a DiagonalLinear; got {type(model).__name__}.")
    x = check_matrix("inputs", inputs, (None, model.positive.shape[0])).astype(model.positive.dtype)
    power = 2 * model.depth - 2
    weights = model.positive**power + model.negative**power
    return model.depth**2 * jnp.sum(weights * jnp.mean(x**2, axis=0))


def rectifier_hessian_trace(model: PyTree, inputs: Float[ArrayLike, "examples in"] | None = None) -> Float[Array, ""]:
    r"""$\operatorname{tr}H$ of a two-layer network of rectifiers by its weights.

    $\sum_j\big[\overline{\phi(w_j\cdot x)^2} + a_j^2\,\overline{\phi'(w_j\cdot x)^2\lVert x\rVert^2}\big]$; for inputs
    that are as likely as their opposites, with $\mathbb E\,xx^\top = I$ in $d$ dimensions, it is
    $\tfrac{1+\alpha^2}2\sum_j(\lVert w_j\rVert^2 + d\,a_j^2)$ with the slope $\alpha$ of negative fields.

    **Arguments:**

    - `model`: a `TwoLayerNetwork` of (leaky) rectifiers with one output and no bias, that fits the data.
    - `inputs`: $x_i$, one example a row; `None` for symmetric isotropic inputs.

    **Raises:**

    `ValueError` for another kind of network or inputs that do not fit.
    """
    model = check_network(model, "rectifier_hessian_trace")
    n_in, _, n_out = model.sizes
    if n_out != 1:
        raise ValueError(f"`model` must have one output for rectifier_hessian_trace; got {n_out}.")
    squares = model.second[0] ** 2
    if inputs is None:
        slope: Any = model.activation
        return (1 + slope.slope**2) / 2 * (jnp.sum(model.first**2) + n_in * jnp.sum(squares))
    x = check_matrix("inputs", inputs, (None, n_in)).astype(model.first.dtype)
    fields = x @ model.first.T
    hidden, slopes = jax.jvp(model.activation, (fields,), (jnp.ones_like(fields),))
    lengths = jnp.sum(x**2, axis=1)
    return jnp.mean(jnp.sum(hidden**2, axis=1) + lengths * (slopes**2 @ squares))


def _check_task(task: Any) -> RegressionTask:
    if not isinstance(task, RegressionTask):
        raise ValueError(f"`task` must be a RegressionTask; got {type(task).__name__}.")
    if task.targets.size != task.targets.shape[0]:
        raise ValueError(f"`task` must have one target for each example; got shape {task.targets.shape}.")
    return task


def _residuals(model: PyTree, task: RegressionTask) -> Float[Array, " examples"]:
    return jnp.ravel(jax.vmap(model)(task.inputs)) - jnp.ravel(task.targets)
