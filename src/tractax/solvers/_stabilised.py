"""What stabilised explicit Runge–Kutta methods share: steps of as many stages as stability asks for."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._recurrence import Field, ScanKind
from ._spectral_radius import spectral_radius

# The spectral radius is measured again after this many gradients, and whenever a step is shorter than the last one.
_LIFETIME = 50
_MAX_PRODUCTS = 20
# Power iteration approaches the spectral radius from below, and it may grow during a step.
_SAFETY = 1.2


class StabilisedState(eqx.Module):
    """What a stabilised solver remembers.

    **Attributes:**

    - `vector_field`: at the present time and state, flat.
    - `direction`: where the last power iteration ended.
    - `spectral_radius`: of the Jacobian, as last measured.
    - `age`: evaluations of the vector field since.
    - `length`: of the last accepted step.
    - `num_gradients`: evaluations of the vector field, in accepted steps.
    - `num_products`: Jacobian-vector products, in accepted steps.
    """

    vector_field: Float[Array, " size"]
    direction: Float[Array, " size"]
    spectral_radius: Float[Array, ""]
    age: Int[Array, ""]
    length: Float[Array, ""]
    num_gradients: Int[Array, ""]
    num_products: Int[Array, ""]


class AbstractStabilisedSolver(diffrax.AbstractAdaptiveSolver[StabilisedState]):
    r"""An explicit method whose stages, more of them for longer steps, keep stiff decaying modes stable.

    A step of length $h$ is stable if $h\rho$ lies within the method's interval, which grows like the square of the
    number of stages ($\rho$: the spectral radius of the Jacobian, whose eigenvalues must lie near the negative real
    axis, as those of a gradient flow do). The solver measures $\rho$ by power iteration on Jacobian-vector products; no
    Jacobian is formed. A step that would need more stages than there are is rejected without being computed.

    A subclass lists its methods and writes `advance`. It solves `diffrax.ODETerm`s of real states.
    """

    scan_kind: eqx.AbstractVar[ScanKind]

    # Ascending: what each method costs, and how far along the negative real axis it is stable.
    stages: eqx.AbstractClassVar[np.ndarray]
    intervals: eqx.AbstractClassVar[np.ndarray]
    # Jacobian-vector products that a step takes besides.
    products: ClassVar[int] = 0

    term_structure: ClassVar[type[diffrax.AbstractTerm]] = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation
    )

    @abc.abstractmethod
    def advance(
        self,
        choice: Int[Array, ""],
        enabled: Bool[Array, ""],
        field: Field,
        y0: Float[Array, " size"],
        f0: Float[Array, " size"],
        h: Float[Array, ""],
    ) -> tuple[Float[Array, " size"], Float[Array, " size"], Float[Array, " size"]]:
        """One step with the method numbered `choice`; nothing is evaluated unless `enabled`.

        **Arguments:**

        - `choice`: which entry of `stages` and `intervals` to use.
        - `enabled`: whether the result is wanted; loops must end at once where it is not.
        - `field`: `field(x, y)` is the vector field at the time `t0 + x * h`.
        - `y0`, `f0`: the state and the vector field at the start.
        - `h`: the length of the step.

        **Returns:**

        The state and the vector field at the end, and an estimate of the state's error.
        """

    def func(self, terms: diffrax.AbstractTerm, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)

    def init(self, terms: diffrax.AbstractTerm, t0: Any, t1: Any, y0: PyTree, args: Any) -> StabilisedState:
        """The state before the first step."""
        control = terms.contr(t0, t1)
        if jax.tree.structure(control) != jax.tree.structure(0) or jnp.shape(control) != ():
            raise ValueError(f"{type(self).__name__} needs a single term driven by time, such as diffrax.ODETerm.")
        vector_field, _ = ravel_pytree(terms.vf(t0, y0, args))
        zero = jnp.zeros((), vector_field.dtype)
        return StabilisedState(
            vector_field=vector_field,
            direction=jnp.zeros_like(vector_field),
            spectral_radius=zero,
            age=jnp.int32(_LIFETIME),
            length=zero,
            num_gradients=jnp.int32(1),
            num_products=jnp.int32(0),
        )

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: Any,
        solver_state: StabilisedState,
        made_jump: Any,
    ) -> tuple[PyTree, PyTree, dict[str, PyTree], StabilisedState, diffrax.RESULTS]:
        """One step from `t0` to `t1`."""
        flat, unravel = ravel_pytree(y0)
        h = terms.contr(t0, t1).astype(flat.dtype)
        state = restart(flat_field(terms, t0, t1, unravel, args), flat, solver_state, made_jump)
        y1, error, new_state = self.flat_step(terms, t0, t1, unravel, args, flat, h, state, jnp.asarray(True))
        dense_info = {
            "y0": y0,
            "y1": unravel(y1),
            "k0": unravel(h * state.vector_field),
            "k1": unravel(h * new_state.vector_field),
        }
        return unravel(y1), unravel(error), dense_info, new_state, diffrax.RESULTS.successful

    def flat_step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Any,
        t1: Any,
        unravel: Callable[[Array], PyTree],
        args: Any,
        y0: Float[Array, " size"],
        h: Float[Array, ""],
        state: StabilisedState,
        enabled: Bool[Array, ""],
    ) -> tuple[Float[Array, " size"], Float[Array, " size"], StabilisedState]:
        """One step on flat states: the state and its error at the end, and what to remember; nothing unless `enabled`."""
        state = _measure(terms, t0, t1, unravel, args, y0, h, state, enabled)
        needed = _SAFETY * jnp.abs(h) * state.spectral_radius
        intervals = jnp.asarray(self.intervals, y0.dtype)
        # Also false for NaN.
        possible = needed <= intervals[-1]
        choice = jnp.sum(intervals[:-1] < needed, dtype=jnp.int32)
        field = flat_field(terms, t0, t1, unravel, args)
        y1, f1, error = self.advance(choice, enabled & possible, field, y0, state.vector_field, h)
        y1 = jnp.where(possible, y1, jnp.nan)
        error = jnp.where(possible, error, jnp.inf)
        cost = jnp.where(enabled & possible, jnp.asarray(self.stages, jnp.int32)[choice], 0)
        products = jnp.where(enabled & possible, self.products, 0)
        state = eqx.tree_at(
            lambda state: (state.vector_field, state.age, state.length, state.num_gradients, state.num_products),
            state,
            (f1, state.age + cost, jnp.abs(h), state.num_gradients + cost, state.num_products + products),
        )
        return y1, error, state


def flat_field(terms: diffrax.AbstractTerm, t0: Any, t1: Any, unravel: Callable[[Array], PyTree], args: Any) -> Field:
    """The vector field at the fraction `x` of a step, on flat states."""

    def field(x: Float[Array, ""], y: Float[Array, " size"]) -> Float[Array, " size"]:
        # The end of the step without rounding.
        t = jnp.where(x == 1, t1, t0 + x.astype(jnp.result_type(t0)) * (t1 - t0))
        return ravel_pytree(terms.vf(t, unravel(y), args))[0]

    return field


def restart(field: Field, y: Float[Array, " size"], state: StabilisedState, made_jump: Any) -> StabilisedState:
    """Evaluates the vector field anew after a jump."""
    if made_jump is False:
        return state
    jumped = jax.lax.cond(
        eqxi.unvmap_any(made_jump),
        lambda: field(jnp.zeros((), y.dtype), y),
        lambda: state.vector_field,
    )
    vector_field = jnp.where(made_jump, jumped, state.vector_field)
    count = state.num_gradients + jnp.where(made_jump, 1, 0)
    return eqx.tree_at(lambda state: (state.vector_field, state.num_gradients), state, (vector_field, count))


def _measure(
    terms: diffrax.AbstractTerm,
    t0: Any,
    t1: Any,
    unravel: Callable[[Array], PyTree],
    args: Any,
    y: Float[Array, " size"],
    h: Float[Array, ""],
    state: StabilisedState,
    enabled: Bool[Array, ""],
) -> StabilisedState:
    """Measures the spectral radius if it is old, or if the last attempt at this step was rejected."""
    # The number of stages is no smooth function: derivatives treat it as given.
    terms, args, y, h, state_ = jax.tree.map(_stop_gradient, (terms, args, y, h, state))
    field = flat_field(terms, t0, t1, unravel, args)
    start = jnp.zeros((), y.dtype)

    def product(v: Float[Array, " size"]) -> Float[Array, " size"]:
        return jax.jvp(lambda y: field(start, y), (y,), (v,))[1]

    # Controllers never shorten a step after an accepted one, but for the end and for discontinuities.
    shorter = jnp.abs(h) < 0.99 * state_.length
    due = enabled & (shorter | (state_.age >= _LIFETIME))
    # A `cond`, since XLA would move work that all products share out of the loop, and do it even without a product.
    radius, direction, count = jax.lax.cond(
        eqxi.unvmap_any(due),
        lambda: spectral_radius(
            product,
            state_.direction,
            jnp.where(shorter, 0, state_.spectral_radius),
            jnp.where(due, _MAX_PRODUCTS, 0),
        ),
        lambda: (state_.spectral_radius, state_.direction, jnp.int32(0)),
    )
    radius = jnp.where(count > 0, radius, state_.spectral_radius)
    return eqx.tree_at(
        lambda state: (state.spectral_radius, state.direction, state.age, state.num_products),
        state,
        (radius, direction, jnp.where(count > 0, 0, state.age), state.num_products + count),
    )


def _stop_gradient(x: Any) -> Any:
    return jax.lax.stop_gradient(x) if eqx.is_array(x) else x
