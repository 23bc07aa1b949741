"""Generalised teacher forcing of a chaotic network."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Kind
from ...teacher_student import (
    PLRNN,
    AbstractPLRNN,
    ShallowPLRNN,
    critical_forcing,
    forced_rollout,
    forced_sensitivity,
    forced_states,
    largest_jacobian_norm,
    sensitivity_bound,
)
from .._system import AbstractSystem, Citation, Tolerance


class TeacherForcingSystem(AbstractSystem):
    """Two random networks on random sequences; and Lozi's chaotic map, which is a network of two units."""

    name: ClassVar[str] = "teacher_forcing"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "sensitivities of a forced recurrent network, and the forcing that keeps them bounded"
    citation: ClassVar[Citation] = Citation("Hess, Monfared, Brenner, Durstewitz", 2023, "2306.04406")
    claim: ClassVar[Tolerance] = Tolerance(1e-10, "relative error of dz(T)/dz(t)")

    def measure(self) -> Float[Array, ""]:
        """Against automatic differentiation of the rollout; infinite if a bound is broken."""
        truth = jax.random.normal(jax.random.key(1), (20, 4))
        errors = []
        for model in networks():
            for forcing in (0.0, 0.4):
                predicted = forced_sensitivity(model, truth[0], truth, forcing)
                found = by_differentiation(model, truth, forcing)
                steps = jnp.arange(20.0, -1.0, -1.0)
                norm = largest_jacobian_norm(model, forced_states(model, truth[0], truth, forcing))
                sizes = jnp.linalg.norm(found, ord=2, axis=(1, 2))
                holds = jnp.all(sizes <= (1 + 1e-12) * sensitivity_bound(norm, forcing, steps))
                distances = jnp.max(jnp.linalg.norm(predicted - found, axis=(1, 2)) / jnp.linalg.norm(found, axis=(1, 2)))
                errors.append(jnp.where(holds, distances, jnp.inf))
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """Sensitivities over the steps at three forcings, and their growth per step against the forcing."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        model, truth = lozi(), lozi_sequence(61)
        norm = largest_jacobian_norm(model)
        critical = float(critical_forcing(norm))
        steps = jnp.arange(60.0, -1.0, -1.0)
        colours = matplotlib.colormaps["viridis"]([0.0, 0.45, 0.8])
        for colour, forcing in zip(colours, (0.0, 0.25, critical), strict=True):
            predicted = jnp.linalg.norm(forced_sensitivity(model, truth[0], truth[:-1], forcing), ord=2, axis=(1, 2))
            found = jnp.linalg.norm(by_differentiation(model, truth[:-1], forcing), ord=2, axis=(1, 2))
            left.semilogy(steps, predicted, color=colour, label=f"$\\alpha$ = {forcing:.2f}")
            left.semilogy(steps[::4], found[::4], "o", color=colour, mfc="white", ms=4)
            left.semilogy(steps, sensitivity_bound(norm, forcing, steps), color=colour, ls=":", lw=1.2)
        left.plot([], [], "o", color="0.3", mfc="white", ms=4, label="automatic")
        left.plot([], [], ":", color="0.3", label="bound")
        left.set(xlabel="$T - t$", ylabel="$\\|\\partial z_T/\\partial z_t\\|$", ylim=(1e-9, 1e18))
        left.set(title="Lozi's map, forced by its own orbit")
        left.legend(fontsize=8, ncols=2, loc="upper left")
        long = lozi_sequence(2001)
        forcings = jnp.linspace(0.0, 0.7, 15)
        last = jnp.eye(2)[0]

        def growth(forcing):
            # Renormalised at every step, since the product itself may overflow.
            def step(carry, target):
                tangent, total = carry
                _, tangent = jax.jvp(lambda z: model((1 - forcing) * z + forcing * target), (target,), (tangent,))
                size = jnp.linalg.norm(tangent)
                return (tangent / size, total + jnp.log(size)), None

            (_, total), _ = jax.lax.scan(step, (last, jnp.zeros(())), long[:-1])
            return total / 2000

        rates = jax.vmap(growth)(forcings)
        fine = jnp.linspace(0.0, 0.7, 100)
        right.plot(fine, rates[0] + jnp.log1p(-fine), label="$\\lambda + \\ln(1-\\alpha)$")
        right.plot(forcings, rates, "o", color="C0", mfc="white", ms=4, label="measured")
        right.plot(fine, jnp.log((1 - fine) * norm), ":", color="C0", label="bound")
        right.axhline(0.0, color="0.6", lw=0.8)
        right.axvline(critical, color="0.4", ls="--", lw=1)
        right.annotate(" $\\alpha_*$", (critical, 0.55))
        right.set(xlabel="forcing $\\alpha$", ylabel="growth per step, $\\ln$", title="When do gradients stop exploding?")
        right.legend(fontsize=8, loc="lower left")


def lozi(a: float = 1.7, b: float = 0.5) -> PLRNN:
    """Lozi's map, $x' = 1 - a|x| + y$, $y' = bx$: chaotic, and piecewise linear."""
    return PLRNN(jnp.asarray([[a, 1.0], [b, 0.0]]), jnp.asarray([[-2 * a, 0.0], [0.0, 0.0]]), jnp.asarray([1.0, 0.0]))


def lozi_sequence(states: int) -> Float[Array, "states 2"]:
    """A part of its attractor."""
    model = lozi()
    return forced_rollout(model, jnp.asarray([0.1, 0.1]), jnp.zeros((states + 100, 2)), 0.0)[101:]


def networks() -> tuple[AbstractPLRNN, AbstractPLRNN]:
    """A network of four units of each kind."""
    keys = jax.random.split(jax.random.key(0), 6)
    square, wide = (4, 4), (4, 7)
    plain = PLRNN(
        0.5 * jax.random.normal(keys[0], square),
        0.5 * jax.random.normal(keys[1], square),
        jax.random.normal(keys[2], (4,)),
    )
    outward, inward = 0.4 * jax.random.normal(keys[3], wide), jax.random.normal(keys[4], wide).T
    return plain, ShallowPLRNN(0.5 * jnp.eye(4), outward, inward, hidden_bias=jax.random.normal(keys[5], (7,)))


def by_differentiation(
    model: AbstractPLRNN, truth: Float[Array, "steps units"], forcing: float
) -> Float[Array, "times units units"]:
    """The derivative of the last state by each state, differentiating the steps in between, one function of a state."""
    states = forced_rollout(model, truth[0], truth, forcing)
    steps = truth.shape[0]

    def last(z: Array, t: Array) -> Array:
        def body(carry, indexed):
            index, target = indexed
            after = model((1 - forcing) * carry + forcing * target)
            return jnp.where(index >= t, after, carry), None

        return jax.lax.scan(body, z, (jnp.arange(steps), truth))[0]

    return jax.vmap(jax.jacfwd(last))(states, jnp.arange(steps + 1))
