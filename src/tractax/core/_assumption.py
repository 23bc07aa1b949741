"""An assumption of a theory, measured on an actual network and task."""

from collections.abc import Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._checks import concrete, look

_T = TypeVar("_T")


class Assumption(eqx.Module):
    """Something a theory takes for granted, with how far the case at hand is from it.

    **Arguments:**

    - `name`: what is assumed, in a few words with its formula.
    - `violation`: how far it is violated, dimensionless; zero when it holds exactly.
    - `tolerance`: the largest violation at which the theory is still offered.
    """

    name: str = eqx.field(static=True)
    violation: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    tolerance: float = eqx.field(static=True)

    @property
    def holds(self) -> Bool[Array, ""] | np.bool_:
        """Whether the violation is within the tolerance (a NaN is not)."""
        return look(self.violation) <= self.tolerance

    def __str__(self) -> str:
        verdict = "holds" if bool(self.holds) else "FAILS"
        return f"{self.name}: {verdict} (violation {float(self.violation):.2g}, tolerance {self.tolerance:.1g})"


def enforce(value: _T, theory: str, assumptions: Sequence[Assumption]) -> _T:
    """Returns `value`, having checked every assumption of the theory that produced it.

    **Raises:**

    `ValueError` listing each assumption that fails and by how much; a run-time error under `jax.jit` or `jax.vmap`.
    """
    advice = "Pass check=False to explore outside the theory."
    if any(concrete(a.holds) is None for a in assumptions):
        arrays, static = eqx.partition(value, eqx.is_array)
        for a in assumptions:
            message = f"{theory} does not apply: {a.name} is violated beyond {a.tolerance:.1g}. {advice}"
            arrays = eqx.error_if(arrays, jnp.logical_not(a.holds), message)
        return eqx.combine(arrays, static)
    failed = [str(a) for a in assumptions if not bool(a.holds)]
    if failed:
        raise ValueError(f"{theory} does not apply. " + "; ".join(failed) + f". {advice}")
    return value


@jax.jit
def relative_norm(x: Array, reference: Array) -> Float[Array, ""]:
    """‖x‖ / ‖reference‖ (Frobenius), and 0 where both vanish."""
    top, bottom = jnp.linalg.norm(jnp.ravel(x)), jnp.linalg.norm(jnp.ravel(reference))
    return jnp.where(top == 0, 0.0, top / jnp.where(bottom == 0, jnp.finfo(top.dtype).tiny, bottom))


def tolerance_for(x: Array) -> float:
    """The violation that rounding alone explains: 1e-8 in float64, 1e-4 in float32."""
    return 1e-8 if jax.dtypes.canonicalize_dtype(x.dtype) == jnp.float64 else 1e-4
