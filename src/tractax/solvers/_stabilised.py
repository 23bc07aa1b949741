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

from ..core import AbstractReportingSolver
from ._packed import Packed
from ._recurrence import Field, ScanKind
from ._spectral_radius import spectral_radius

# The spectral radius is measured again after this many gradients at the latest, and whenever a step is shorter than the
# last one; four times as often unless it was steady.
LIFETIME = 200
_STEADY = 0.01
_MAX_PRODUCTS = 20
# Power iteration approaches the spectral radius from below, and it may grow during a step: by how much it is
# underestimated is judged by how much it changed between measurements.
_MARGINS = (0.08, 0.2)
_MARGIN_PER_CHANGE = 4.0


class StabilisedState(eqx.Module):
    """What a stabilised solver remembers.

    **Attributes:**

    - `vector_field`: at the present time and state.
    - `direction`: where the last power iteration ended, flat.
    - `spectral_radius`: of the Jacobian, as last measured.
    - `change`: of the spectral radius between the last two measurements, relative.
    - `age`: evaluations of the vector field since the last one.
    - `length`: of the last accepted step.
    - `num_gradients`: evaluations of the vector field, in accepted steps.
    - `num_products`: Jacobian-vector products, in accepted steps.
    """

    vector_field: PyTree[Float[Array, "..."]]
    direction: Float[Array, " size"]
    spectral_radius: Float[Array, ""]
    change: Float[Array, ""]
    age: Int[Array, ""]
    length: Float[Array, ""]
    num_gradients: Int[Array, ""]
    num_products: Int[Array, ""]

    @classmethod
    def start(cls, vector_field: PyTree[Float[Array, "..."]], num_gradients: int) -> "StabilisedState":
        """Before the first step, having computed so many gradients."""
        direction = jnp.zeros_like(ravel_pytree(vector_field)[0])
        zero = jnp.zeros((), direction.dtype)
        return cls(
            vector_field=vector_field,
            direction=direction,
            spectral_radius=zero,
            change=zero + jnp.inf,
            age=jnp.int32(LIFETIME),
            length=zero,
            num_gradients=jnp.int32(num_gradients),
            num_products=jnp.int32(0),
        )

    def after(
        self,
        vector_field: PyTree[Float[Array, "..."]],
        length: Float[Array, ""],
        cost: Int[Array, ""],
        products: int | Int[Array, ""] = 0,
    ) -> "StabilisedState":
        """After a step that cost so many gradients, and Jacobian-vector products besides."""
        return StabilisedState(
            vector_field=vector_field,
            direction=self.direction,
            spectral_radius=self.spectral_radius,
            change=self.change,
            age=self.age + cost,
            length=length,
            num_gradients=self.num_gradients + cost,
            num_products=self.num_products + products,
        )

    def statistics(self) -> dict[str, Any]:
        """What to tell the user."""
        return {
            "num_gradients": self.num_gradients,
            "num_products": self.num_products,
            "spectral_radius": self.spectral_radius,
        }


class AbstractStabilisedSolver(AbstractReportingSolver[Packed[StabilisedState]]):
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

    def init(self, terms: diffrax.AbstractTerm, t0: Any, t1: Any, y0: PyTree, args: Any) -> Packed[StabilisedState]:
        """The state before the first step."""
        check_problem(self, terms, t0, t1, y0)
        return Packed(StabilisedState.start(terms.vf(t0, y0, args), 1))

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: Any,
        solver_state: Packed[StabilisedState],
        made_jump: Any,
    ) -> tuple[PyTree, PyTree, dict[str, PyTree], Packed[StabilisedState], diffrax.RESULTS]:
        """One step from `t0` to `t1`."""
        interval = Interval(terms, t0, t1, args)
        state = interval.restart(y0, solver_state.tree, made_jump)
        y1, error, new_state = self.attempt(interval, y0, state, jnp.asarray(True))
        dense_info = {"y0": y0, "y1": y1, "k0": interval.slope(state), "k1": interval.slope(new_state)}
        return y1, error, dense_info, Packed(new_state), diffrax.RESULTS.successful

    def attempt(
        self, interval: "Interval", y0: PyTree, state: StabilisedState, enabled: Bool[Array, ""]
    ) -> tuple[PyTree, PyTree, StabilisedState]:
        """One step: the state at the end, its error, and what to remember; nothing is evaluated unless `enabled`."""
        flat, unravel = ravel_pytree(y0)
        h = interval.length.astype(flat.dtype)
        state = _measure(interval, flat, unravel, h, state, enabled)
        margin = jnp.clip(_MARGIN_PER_CHANGE * state.change, *_MARGINS)
        needed = (1 + margin) * jnp.abs(h) * state.spectral_radius
        intervals = jnp.asarray(self.intervals, flat.dtype)
        # Also false for NaN.
        possible = needed <= intervals[-1]
        choice = jnp.sum(intervals[:-1] < needed, dtype=jnp.int32)
        f0, _ = ravel_pytree(state.vector_field)
        y1, f1, error = self.advance(choice, enabled & possible, interval.field(unravel), flat, f0, h)
        y1 = jnp.where(possible, y1, jnp.nan)
        error = jnp.where(possible, error, jnp.inf)
        cost = jnp.where(enabled & possible, jnp.asarray(self.stages, jnp.int32)[choice], 0)
        products = jnp.where(enabled & possible, self.products, 0)
        return unravel(y1), unravel(error), state.after(unravel(f1), jnp.abs(h), cost, products)

    def statistics(self, solver_state: Packed[StabilisedState]) -> dict[str, Any]:
        """`num_gradients`, `num_products` (Jacobian-vector products) and the `spectral_radius` as last measured."""
        return solver_state.tree.statistics()


def check_problem(solver: diffrax.AbstractSolver, terms: diffrax.AbstractTerm, t0: Any, t1: Any, y0: PyTree) -> None:
    """Time must be what drives the state, and the state real."""
    control = terms.contr(t0, t1)
    if jax.tree.structure(control) != jax.tree.structure(0) or jnp.shape(control) != ():
        raise ValueError(f"{type(solver).__name__} needs a single term driven by time, such as diffrax.ODETerm.")
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(y0)):
        raise ValueError(f"{type(solver).__name__} needs a real state `y0`; it has complex arrays.")


class Interval(eqx.Module):
    """The problem on one step."""

    terms: diffrax.AbstractTerm
    t0: Any
    t1: Any
    args: Any

    @property
    def length(self) -> Array:
        """The length of the step, negative if the problem runs backwards in time."""
        return jnp.asarray(self.terms.contr(self.t0, self.t1))

    def field(self, unravel: Callable[[Array], PyTree]) -> Field:
        """The vector field at a fraction of the step, on flat states."""

        def field(x: Float[Array, ""], y: Float[Array, " size"]) -> Float[Array, " size"]:
            # The end of the step without rounding.
            t = self.t0 + x.astype(jnp.result_type(self.t0)) * (self.t1 - self.t0)
            t = jnp.where(x == 1, self.t1, t)
            return ravel_pytree(self.terms.vf(t, unravel(y), self.args))[0]

        return field

    def slope(self, state: StabilisedState) -> PyTree:
        """The vector field times the length of the step, as interpolation wants it."""
        return self.terms.prod(state.vector_field, self.terms.contr(self.t0, self.t1))

    def restart(self, y0: PyTree, state: StabilisedState, made_jump: Any) -> StabilisedState:
        """After a jump, evaluates the vector field anew, and makes the spectral radius due."""
        if made_jump is False:
            return state
        jumped = jax.lax.cond(
            eqxi.unvmap_any(made_jump),
            lambda: self.terms.vf(self.t0, y0, self.args),
            lambda: state.vector_field,
        )
        vector_field = jax.tree.map(lambda a, b: jnp.where(made_jump, a, b), jumped, state.vector_field)
        count = state.num_gradients + jnp.where(made_jump, 1, 0)
        age = jnp.where(made_jump, LIFETIME, state.age)
        return eqx.tree_at(
            lambda state: (state.vector_field, state.num_gradients, state.age), state, (vector_field, count, age)
        )


def _measure(
    interval: Interval,
    y: Float[Array, " size"],
    unravel: Callable[[Array], PyTree],
    h: Float[Array, ""],
    state: StabilisedState,
    enabled: Bool[Array, ""],
) -> StabilisedState:
    """Measures the spectral radius if it is old, or if the last attempt at this step was rejected."""
    # The number of stages is no smooth function: derivatives treat it as given.
    interval, y, h, state_ = jax.tree.map(_stop_gradient, (interval, y, h, state))
    field = interval.field(unravel)
    start = jnp.zeros((), y.dtype)

    def product(v: Float[Array, " size"]) -> Float[Array, " size"]:
        return jax.jvp(lambda y: field(start, y), (y,), (v,))[1]

    # Controllers never shorten a step after an accepted one, but for the end and for discontinuities.
    shorter = jnp.abs(h) < 0.99 * state_.length
    lifetime = jnp.where(state_.change < _STEADY, LIFETIME, LIFETIME // 4)
    due = enabled & (shorter | (state_.age >= lifetime))
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
    last = state_.spectral_radius
    # In a batch, others may have been due.
    radius = jnp.where(count > 0, radius, last)
    direction = jnp.where(count > 0, direction, state_.direction)
    change = jnp.where(last > 0, jnp.abs(radius - last) / jnp.where(last > 0, last, 1), jnp.inf)
    change = jnp.where(count > 0, change, state_.change)
    return eqx.tree_at(
        lambda state: (state.spectral_radius, state.change, state.direction, state.age, state.num_products),
        state,
        (radius, change, direction, jnp.where(count > 0, 0, state.age), state.num_products + count),
    )


def _stop_gradient(x: Any) -> Any:
    return jax.lax.stop_gradient(x) if eqx.is_array(x) else x
