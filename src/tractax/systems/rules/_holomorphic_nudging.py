"""Equilibrium propagation in a nonlinear network: complex nudges on a circle, geometrically better with their number."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...rules import EquilibriumNetwork, EquilibriumPropagation, EquilibriumTask
from .._system import AbstractSystem, Citation, Exponent

_RADII = (0.2, 0.14, 0.1, 0.07, 0.05)


class HolomorphicNudgingSystem(AbstractSystem):
    """Five tanh units with asymmetric weights, two of which answer one input."""

    name: ClassVar[str] = "holomorphic_nudging"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "nudges of N phases in a holomorphic network: the error falls as the Nth power of the nudge"
    citation: ClassVar[Citation] = Citation("Laborieux, Zenke", 2023, "2309.02214")
    claim: ClassVar[Exponent] = Exponent(4.0, "exponent in the nudge, four points")

    def network(self) -> tuple[EquilibriumNetwork, EquilibriumTask]:
        """The network and its single example."""
        weights = 0.25 * jax.random.normal(jax.random.key(2), (5, 5))
        task = EquilibriumTask([[0.0, 0.3, 0.6, 0.9, 1.2]], [[1.0, -0.5]], jnp.eye(2, 5))
        return EquilibriumNetwork(weights, activation=jnp.tanh), task

    def error(self, nudge: ArrayLike, points: int) -> Float[Array, ""]:
        r"""The relative error of the estimate of $du/d\beta$, against the implicit function theorem."""
        model, task = self.network()
        state = model(task.inputs[0])
        stiffness = -jax.jacfwd(model.force)(state, task.inputs[0])
        exact = jnp.linalg.solve(stiffness, -task.error(state, task.targets[0]))
        found = EquilibriumPropagation(nudge, points).responses(model, task)[1][0]
        return jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)

    def measure(self) -> Scaling:
        """The rate at which the error falls with the nudge."""
        error = eqx.filter_jit(lambda nudge: self.error(nudge, 4))
        return scaling(lambda nudge: error(jnp.asarray(nudge)), _RADII, correction=4.0)

    def draw(self, figure: Any) -> None:
        """The error against the nudge, with the predicted powers, and against the number of points."""
        import matplotlib

        powers, points = figure.subplots(1, 2)
        radii = jnp.geomspace(0.03, 0.3, 9)
        colours = matplotlib.colormaps["viridis"]([0.0, 0.28, 0.56, 0.84])
        for count, colour in zip((1, 2, 4, 8), colours, strict=True):
            errors = jax.jit(jax.vmap(lambda r, n=count: self.error(r, n)))(radii)
            powers.loglog(radii, errors, "o", color=colour, mfc="white", ms=5)
            seen = int(jnp.argmax(errors > 1e-13))
            powers.loglog(radii, errors[seen] * (radii / radii[seen]) ** count, color=colour, label=f"$r^{count}$")
        powers.set(xlabel="nudge $r$", ylabel="relative error of $du/d\\beta$", ylim=(1e-16, 3))
        powers.set_xticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
        powers.minorticks_off()
        powers.legend(fontsize=8)
        counts = (1, 2, 3, 4, 6, 8, 12, 16, 24)
        nudges = jnp.asarray([0.3, 0.2, 0.1])
        table = [jax.jit(jax.vmap(lambda r, n=count: self.error(r, n)))(nudges) for count in counts]
        for nudge, errors, colour in zip(nudges, jnp.stack(table).T, colours, strict=False):
            label = f"$r = {nudge:g}$"
            points.semilogy(counts, errors, "o-", color=colour, mfc="white", ms=5, lw=0.8, label=label)
        points.set(xlabel="number of points $N$", ylim=(1e-16, 3))
        points.legend(fontsize=8)
