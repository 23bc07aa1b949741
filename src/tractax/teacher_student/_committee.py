"""Soft committee machines: two layers, a readout of a few hidden units."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..analysis import AbstractActivation, Erf
from ..core import check_count, check_key, check_matrix, check_psd, standard_normal


class SoftCommittee(eqx.Module):
    r"""$f(x) = \sum_k v_k\, g(w_k\cdot x/\sqrt N)$.

    **Arguments:**

    - `weights`: $w_k$, one hidden unit a row, shape `(hidden, in)`; entries of order one.
    - `readout`: $v$, shape `(hidden,)`; ones by default, the committee machine proper.
    - `activation`: $g$, `tx.analysis.Erf()` by default.
    """

    weights: Float[Array, "hidden in"]
    readout: Float[Array, " hidden"]
    activation: AbstractActivation

    def __init__(
        self,
        weights: Float[ArrayLike, "hidden in"],
        readout: Float[ArrayLike, " hidden"] | None = None,
        activation: Callable | None = None,
    ):
        self.weights = check_matrix("weights", weights)
        hidden = self.weights.shape[0]
        ones = jnp.ones(hidden, self.weights.dtype)
        self.readout = ones if readout is None else check_matrix("readout", readout, (hidden,)).astype(ones.dtype)
        activation = Erf() if activation is None else activation
        if not isinstance(activation, AbstractActivation):
            raise ValueError(
                "`activation` must know its Gaussian averages, such as tx.analysis.Erf(), or tx.analysis.Custom(g) for "
                f"any function g; got {activation!r}."
            )
        self.activation = activation

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """The output for one input."""
        return self.readout @ self.activation(self.weights @ x / x.shape[0] ** 0.5)


def committees(
    student: Float[ArrayLike, "student student"],
    cross: Float[ArrayLike, "student teacher"],
    teacher: Float[ArrayLike, "teacher teacher"],
    *,
    size: int,
    key: PRNGKeyArray,
    student_readout: Float[ArrayLike, " student"] | None = None,
    teacher_readout: Float[ArrayLike, " teacher"] | None = None,
    activation: Callable | None = None,
) -> tuple[SoftCommittee, SoftCommittee]:
    """A student and a teacher with exactly the given overlaps, in random directions.

    Simulations of different sizes can then be compared with one solution, free of the scatter of random starts.

    **Arguments:**

    - `student`, `cross`, `teacher`: the overlaps $Q_{ik} = w_i\\cdot w_k/N$, $R_{in} = w_i\\cdot w^*_n/N$ and
      $T_{nm} = w^*_n\\cdot w^*_m/N$.
    - `size`: $N$, the number of inputs, at least as many as there are hidden units in both together.
    - `key`: for the directions.
    - `student_readout`, `teacher_readout`, `activation`: as in `SoftCommittee`.

    **Returns:**

    `(student, teacher)`.

    **Raises:**

    `ValueError` if the overlaps are not those of any vectors (not positive semi-definite) or `size` is too small.
    """
    check_key(key)
    teacher = check_matrix("teacher", teacher)
    cross = check_matrix("cross", cross, (None, teacher.shape[1]))
    hidden = cross.shape[0]
    student = check_matrix("student", student, (hidden, hidden))
    covariance = check_psd("[[student, cross], [cross.T, teacher]]", jnp.block([[student, cross], [cross.T, teacher]]))
    units = covariance.shape[0]
    if check_count("size", size) < units:
        raise ValueError(f"`size` must be at least {units}, the number of hidden units of both; got {size}.")
    values, vectors = jnp.linalg.eigh(covariance)
    # A symmetric root, which exists for dependent vectors too.
    root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]) @ vectors.T
    directions, _ = jnp.linalg.qr(standard_normal(key, (size, units), covariance.dtype))
    weights = size**0.5 * root @ directions.T
    return (
        SoftCommittee(weights[:hidden], student_readout, activation),
        SoftCommittee(weights[hidden:], teacher_readout, activation),
    )
