r"""Equilibrium propagation in linear networks, where the effect of every finite nudge is known.

With $F(u) = -Ju + c$, the readout $P$ and targets $y$ of an `EquilibriumTask`, let $u = J^{-1}c$, $e = P^\top(y - Pu)$
and $M = J^{-1}P^\top P$. Then, with $d = J^{-1}e$, nudged states are $u + \beta(I + \beta M)^{-1}d$, and the estimate of
`EquilibriumPropagation` from $N$ points on a circle of radius $r$ is

$$\hat d = (I - (-rM)^N)^{-1}d.$$

It has a bias that vanishes with $N$ for $r < \beta_* = \min 1/|\mathrm{eig}\,M|$. The true gradient needs
$\delta = J^{-\top}e$ instead of $d$, a bias that does not vanish with $N$ unless $J$ is symmetric.

Assumes a force that is linear in the state, with the same $J$ for every input. Loss: that of the task.

Source: Laborieux and Zenke 2023 (arXiv 2309.02214) for the rule; the finite nudges were worked out here.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import Assumption, check_positive, enforce, relative_norm, standard_normal, tolerance_for
from ._equilibrium_network import check_network


class LinearEquilibrium(eqx.Module):
    r"""The equilibria of a linear network, and how they respond to nudges.

    **Attributes:**

    - `states`: $u$, shape `(examples, units)`.
    - `residuals`: $y - Pu$, shape `(examples, out)`.
    - `gains`: $J^{-1}P^\top$, shape `(units, out)`.
    - `loop`: $PJ^{-1}P^\top$, shape `(out, out)`, whose eigenvalues are those of $M$ that do not vanish.
    - `responses`: $d$, what equilibrium propagation measures, shape `(examples, units)`.
    - `adjoints`: $\delta$, what the true gradient needs, shape `(examples, units)`.
    """

    states: Float[Array, "examples units"]
    residuals: Float[Array, "examples out"]
    gains: Float[Array, "units out"]
    loop: Float[Array, "out out"]
    responses: Float[Array, "examples units"]
    adjoints: Float[Array, "examples units"]

    @classmethod
    def from_model(cls, model: PyTree, task: PyTree, *, check: bool = True) -> "LinearEquilibrium":
        """The equilibria of an actual network.

        **Arguments:**

        - `model`: an `AbstractEquilibriumModel` whose force is linear in the state.
        - `task`: an `EquilibriumTask`.
        - `check`: whether to refuse a nonlinear force; if not, it is linearised at the first equilibrium.

        **Raises:**

        `ValueError` for another model or task, or a nonlinear force.
        """
        check_network(model, task)
        states = jax.vmap(model)(task.inputs)
        stiffness = -jax.jacfwd(model.force)(states[0], task.inputs[0])
        gains = jnp.linalg.solve(stiffness, task.readout.T)
        residuals = task.targets - states @ task.readout.T
        adjoints = jnp.linalg.solve(stiffness.T, (residuals @ task.readout).T).T
        found = cls(states, residuals, gains, task.readout @ gains, residuals @ gains.T, adjoints)
        return enforce(found, cls.__name__, cls.assumptions(model, task)) if check else found

    @staticmethod
    def assumptions(model: PyTree, task: PyTree) -> list[Assumption]:
        """What the theory takes for granted: the force has the same derivative in every state and under every input."""
        check_network(model, task)
        key = jax.random.key(0)
        others = standard_normal(key, (task.inputs.shape[0], model.units), task.inputs.dtype)
        jacobian = jax.jacfwd(model.force)
        here = jacobian(jnp.zeros(model.units, task.inputs.dtype), task.inputs[0])
        elsewhere = jax.vmap(jacobian)(others, task.inputs)
        return [Assumption("linear force", relative_norm(elsewhere - here[None], here), tolerance_for(task.inputs))]

    @property
    def radius(self) -> Float[Array, ""]:
        r"""$\beta_*$, the nudge at which the nearest pole lies; infinite if there is none."""
        largest = jnp.max(jnp.abs(jnp.linalg.eigvals(self.loop)))
        return jnp.where(largest > 0, 1 / jnp.where(largest > 0, largest, 1.0), jnp.inf)

    def estimate(self, nudge: ArrayLike, points: int) -> Float[Array, "examples units"]:
        r"""$\hat d$, what `EquilibriumPropagation(nudge, points)` finds in place of $d$; beyond `radius` nonsense too."""
        radius = check_positive("nudge", nudge, scalar=True).astype(self.loop.dtype)
        power = jnp.linalg.matrix_power(-radius * self.loop, points)
        identity = jnp.eye(self.loop.shape[0], dtype=self.loop.dtype)
        return jnp.linalg.solve(identity - power, self.residuals.T).T @ self.gains.T
