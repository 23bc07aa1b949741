"""Data and networks that are odd: what makes a rectifier network linear."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import Assumption, as_float_array, check_matrix, tolerance_for
from ..deep_linear import RegressionTask
from ._base import targets_of
from ._network import LeakyReLU, TwoLayerNetwork


def mirrored_task(inputs: PyTree, targets: PyTree) -> RegressionTask:
    """Regression on a data set and its mirror image: with every $(x, y)$ also $(-x, -y)$.

    **Arguments:**

    - `inputs`: one example a row, shape `(examples, in)`.
    - `targets`: shape `(examples, out)`, or `(examples,)`.
    """
    x, y = check_matrix("inputs", inputs), as_float_array("targets", targets)
    return RegressionTask(jnp.concatenate([x, -x]), jnp.concatenate([y, -y]))


def antipodal_network(first: PyTree, second: PyTree, *, slope: float = 0.0) -> TwoLayerNetwork:
    r"""$W_1 = [A; -A]$, $W_2 = [B, -B]$: pairs of opposite units, which together are linear, $f(x) = (1 + \alpha)BAx$.

    **Arguments:**

    - `first`: $A$, shape `(pairs, in)`.
    - `second`: $B$, shape `(out, pairs)`, or `(pairs,)` for one output.
    - `slope`: $\alpha$ of the activation, `LeakyReLU(slope)`.
    """
    half = TwoLayerNetwork(first, second, LeakyReLU(slope))
    pairs = (jnp.concatenate([half.first, -half.first]), jnp.concatenate([half.second, -half.second], axis=1))
    return TwoLayerNetwork(*pairs, half.activation)


def mirrored_data(task: RegressionTask) -> Assumption:
    """With every example the opposite one, as often."""
    rows = jnp.concatenate([task.inputs, targets_of(task)], axis=1)
    scale = jnp.max(jnp.abs(rows))
    tolerance = 10 * tolerance_for(rows) * scale

    def excess(row: Array) -> Array:
        """How many examples are like this one, less those opposite to it."""
        same, opposite = (jnp.max(jnp.abs(rows - sign * row[None, :]), axis=1) <= tolerance for sign in (1, -1))
        return jnp.sum(same) - jnp.sum(opposite)

    unpaired = jnp.sum(jax.lax.map(excess, rows) > 0)
    violation = unpaired.astype(rows.dtype) / rows.shape[0]
    return Assumption("mirrored data, (-x, -y) for every (x, y) (share of the others)", violation, 0.0)


def opposite_units(model: TwoLayerNetwork) -> Assumption:
    r"""The units are as many, by mass, in every direction $(w, a)$ as in the opposite one.

    Parallel units count as one, of squared norm equal to the sum. Measured is the distance of this distribution from its
    mirror image, in the norm of the kernel $\sinh(v\cdot v')$ of unit vectors.
    """
    rows = jnp.concatenate([model.first, model.second.T], axis=1)
    squares = jnp.sum(rows**2, axis=1)
    unit = rows / jnp.sqrt(jnp.where(squares == 0, 1.0, squares))[:, None]
    total = jnp.sum(squares)
    share = squares / jnp.where(total == 0, 1.0, total)
    distance = jnp.sqrt(jnp.maximum(share @ jnp.sinh(unit @ unit.T) @ share, 0.0))
    # The root of a difference.
    tolerance = 10 * float(jnp.finfo(rows.dtype).eps) ** 0.5
    return Assumption("opposite units, (-w, -a) for every (w, a)", distance, tolerance)


def off_the_kinks(model: TwoLayerNetwork, task: RegressionTask) -> Assumption:
    r"""No input is orthogonal to the weights of a unit, where the slope of the activation is a convention."""
    lengths = jnp.linalg.norm(model.first, axis=1)[:, None] * jnp.linalg.norm(task.inputs, axis=1)[None, :]
    counts = (jnp.linalg.norm(model.second, axis=0) > 0)[:, None] & (jnp.linalg.norm(task.inputs, axis=1) > 0)[None, :]
    cosines = jnp.abs(model.first @ task.inputs.T) / jnp.where(lengths == 0, 1.0, lengths)
    on = counts & (cosines <= 100 * jnp.finfo(cosines.dtype).eps)
    return Assumption("no input on the kink of a unit, w·x ≠ 0", jnp.where(jnp.any(on), 1.0, 0.0), 0.0)


def second_moments(task: RegressionTask) -> tuple[Float[Array, "out in"], Float[Array, "in in"], Float[Array, ""]]:
    r"""$\Sigma_{yx}$, $\Sigma_{xx}$ and $\mathbb E\lVert y\rVert^2$ of the data."""
    x, y = task.inputs, targets_of(task)
    examples = x.shape[0]
    return y.T @ x / examples, x.T @ x / examples, jnp.sum(y**2) / examples
