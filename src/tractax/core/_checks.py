"""Checks of what a user passes in. Each error names the argument, what was expected and what came."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

_T = TypeVar("_T")


def concrete(ok: Any) -> bool | None:
    """The truth value of `ok`, or `None` where it is being traced and not yet known."""
    try:
        return bool(ok)
    except jax.errors.ConcretizationTypeError:
        return None


def require(value: _T, ok: Bool[Array, ""] | bool | np.bool_, message: str) -> _T:
    """Returns `value`, having checked that `ok` holds.

    Known values raise a plain `ValueError`; under `jax.jit` or `jax.vmap` the check becomes an `equinox.error_if`
    attached to `value`.

    **Arguments:**

    - `value`: any PyTree of arrays; use the returned one, so that a traced check is not optimised away.
    - `ok`: whether the requirement holds.
    - `message`: names the argument, what was expected and what came.

    **Returns:**

    `value`, unchanged.

    **Raises:**

    `ValueError` when `ok` is known to be false; a run-time error when it turns out false under a transformation.
    """
    known = concrete(ok)
    if known is None:
        return eqx.error_if(value, jnp.logical_not(ok), message)
    if not known:
        raise ValueError(message)
    return value


def as_float_array(name: str, x: Any) -> Array:
    """`x` as a real floating-point array (integers are converted)."""
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be an array of numbers; got {type(x).__name__}.") from error
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(f"`{name}` must be real; got dtype {x.dtype}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.result_type(float))
    return x


def look(x: Array) -> Any:
    """`x` as a NumPy array where its values are known, which is looked at much faster than a JAX array."""
    try:
        return np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return x


def check_finite(name: str, x: Any, *, scalar: bool = False) -> Array:
    """`x` as a float array without NaN or infinity (of one number with `scalar=True`), or an error naming `name`."""
    x = as_float_array(name, x)
    if scalar and x.ndim != 0:
        raise ValueError(f"`{name}` must be one number; got shape {x.shape}.")
    return _require_finite(name, x)


def _require_finite(name: str, x: Array) -> Array:
    return require(x, (abs(look(x)) < jnp.inf).all(), f"`{name}` must be finite; it contains NaN or infinity.")


def check_matrix(name: str, x: Any, shape: tuple[int | None, ...] = (None, None)) -> Array:
    """`x` as a finite array of the given shape (`None`: any size above zero), or an error naming `name`."""
    x = as_float_array(name, x)
    fits = x.ndim == len(shape) and all(
        have > 0 if want is None else have == want for have, want in zip(x.shape, shape, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"`{name}` must have shape {wanted} without empty axes; got {x.shape}.")
    return _require_finite(name, x)


def check_positive(name: str, x: Any, *, zero: bool = False, scalar: bool = False) -> Array:
    """As `check_finite`, and above zero (or not below it with `zero=True`)."""
    x = check_finite(name, x, scalar=scalar)
    bound = "non-negative" if zero else "positive"
    seen = look(x)
    return require(x, (seen >= 0 if zero else seen > 0).all(), f"`{name}` must be {bound}; got {_show(seen)}.")


def check_fraction(name: str, x: Any, *, zero: bool = True) -> Array:
    """`x` as one number of at least zero (above it with `zero=False`) and below one: a momentum, a decay rate."""
    x = check_positive(name, x, zero=zero, scalar=True)
    seen = look(x)
    return require(x, (seen < 1).all(), f"`{name}` must lie below 1; got {_show(seen)}.")


def check_count(name: str, count: Any, *, least: int = 1) -> int:
    """`count` as a whole number of at least `least`, or an error naming `name`."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}; got {count!r}.")
    return int(count)


def check_sizes(**sizes: Any) -> None:
    """Each must be a whole number of at least one, or an error names it."""
    for name, size in sizes.items():
        check_count(name, size)


def check_indices(name: str, x: Any, ndim: int = 1, *, below: int | None = None) -> Array:
    """`x` as a non-empty array of whole numbers from 0 (up to, but not, `below`), or an error naming `name`."""
    expected = "numbers from 0" if below is None else f"numbers from 0 to {below - 1}"
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be whole {expected}; got {type(x).__name__}.") from error
    if x.ndim != ndim or x.size == 0 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"`{name}` must be whole {expected}, in an array of {ndim} axes; got shape {x.shape} of {x.dtype}."
        )
    seen = look(x)
    fits = seen >= 0 if below is None else (seen >= 0) & (seen < below)
    return require(x, fits.all(), f"`{name}` must be whole {expected}; got {_show(seen)}.")


def check_psd(name: str, x: Any, size: int | None = None) -> Array:
    """`x` as a symmetric positive semi-definite matrix up to rounding, or an error naming `name`."""
    x = check_matrix(name, x, (size, size))
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"`{name}` must be square; got shape {x.shape}.")
    seen = look(x)
    # Known values go to NumPy, which compiles nothing.
    xp = np if isinstance(seen, np.ndarray) else jnp
    rounding = 100 * x.shape[0] * jnp.finfo(x.dtype).eps * abs(seen).max()
    asymmetry = abs(seen - seen.T).max()
    x = require(x, asymmetry <= rounding, f"`{name}` must be symmetric; ‖x − xᵀ‖ reaches {_show(asymmetry)}.")
    lowest = xp.linalg.eigvalsh(seen)[0]
    message = f"`{name}` must be positive semi-definite; its lowest eigenvalue is {_show(lowest)}."
    return require(x, lowest >= -rounding, message)


def check_times(name: str, ts: Any, dtype: Any = None) -> Array:
    """`ts` as a one-dimensional array of finite, non-negative, strictly increasing times (in `dtype`)."""
    ts = check_matrix(name, ts, (None,))
    ts = ts if dtype is None or ts.dtype == dtype else ts.astype(dtype)
    seen = look(ts)
    ts = require(ts, seen[0] >= 0, f"`{name}` must be non-negative; it starts at {_show(seen[0])}.")
    return require(ts, (seen[1:] > seen[:-1]).all(), f"`{name}` must increase strictly (in {ts.dtype}).")


def check_key(key: Any) -> None:
    """One PRNG key must have been passed."""
    array = isinstance(key, jax.Array | np.ndarray)
    if array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return
    # A key of the old kind.
    if array and key.dtype == np.uint32 and key.ndim == 1:
        return
    found = f"shape {key.shape} of {key.dtype}" if array else repr(key)
    raise ValueError(f"`key` must be a JAX PRNG key; got {found}. Pass `key=jax.random.key(0)`.")


def _show(x: Any) -> str:
    try:
        return str(np.asarray(x))
    except jax.errors.TracerArrayConversionError:
        return "a traced value"
