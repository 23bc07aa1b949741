r"""Modular addition from small outputs in closed form: phases lock, and one frequency wins each neuron.

Set-up as in `ModularModesFlow`. In polar form every mode obeys

$$\tau\dot\alpha = \tfrac2p\,\alpha\beta\cos D,\qquad \tau\dot\beta = \tfrac1p\,\alpha^2\cos D,\qquad \tau\dot D =
-\Big(\tfrac4p\,\beta + \frac{\alpha^2}{p\beta}\Big)\sin D.$$

The amplitudes are elliptic functions of time. They diverge at a time $T_k$ which an elliptic integral gives from the
initial weights: short where the amplitudes are large and the phases aligned. The frequency with the smallest $T_k$ is the
one that a neuron ends with, its winning ticket, long before the others have grown. For aligned phases ($D = 0$) and
$\alpha^2 = 2\beta^2$, $T = p\tau/2\beta(0)$.

Source: He, Wang, Chen and Yang 2026, arXiv 2602.16849; the elliptic solution and $T_k$ are derived here.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..core import AbstractRule, AbstractSolution, Assumption, Kind, enforce
from ..rules import check_flow
from ._modular_modes import ModularModes, modes_of, modular_assumptions, modular_modes, orbits
from ._modular_network import ModularNetwork
from ._phase_orbit import PhaseOrbit


class ModeAmplitudes(eqx.Module):
    r"""The modes of a modular network, up to one phase each.

    **Attributes:**

    - `embedding`: $\alpha$, shape `(neurons, frequencies)`.
    - `readout`: $\beta$.
    - `misalignment`: $D = 2\varphi - \psi$, between $-\pi$ and $\pi$.
    """

    embedding: Float[Array, "*times neurons frequencies"]
    readout: Float[Array, "*times neurons frequencies"]
    misalignment: Float[Array, "*times neurons frequencies"]


class PhaseLocking(AbstractSolution[ModeAmplitudes]):
    """Amplitudes and misalignments of all modes of a modular network, in closed form until the first of them diverges.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`).

    **Attributes:**

    - `initial`: the modes at time zero.
    - `orbit`: the elliptic functions that they follow.
    - `p`: the modulus.
    - `time_constant`: $\\tau$.
    """

    initial: ModularModes
    orbit: PhaseOrbit
    p: int = eqx.field(static=True)
    time_constant: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "PhaseLocking":
        """The solution for a network.

        **Raises:**

        `ValueError` if the network does not fit the task, if $p$ is even, or if an assumption fails.
        """
        modes, rule = modes_of(model, task), check_flow(rule, cls.__name__)
        solution = cls(modes, orbits(modes), task.p, rule.time_constant.astype(modes.embedding.dtype))
        return enforce(solution, cls.__name__, modular_assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        modes_of(model, task)
        return modular_assumptions(model, task, check_flow(rule, cls.__name__))

    @property
    def blow_up_times(self) -> Float[Array, "neurons frequencies"]:
        """$T_k$, the time at which each mode diverges; infinite for modes that never do."""
        return self.orbit.duration() * self.time_constant * self.p / 2

    @property
    def winners(self) -> Int[Array, " neurons"]:
        """The frequency $k = 1, 2, \\dots$ that diverges first in each neuron; 0 where none does."""
        times = self.blow_up_times
        return jnp.where(jnp.isinf(jnp.min(times, axis=1)), 0, 1 + jnp.argmin(times, axis=1))

    @property
    def t1(self) -> Float[Array, ""]:
        """The horizon: when the first mode diverges."""
        return jnp.min(self.blow_up_times)

    def state(self, t: Float[Array, ""]) -> ModeAmplitudes:
        """The modes at time `t`, until the first one diverges."""
        t = t.astype(self.time_constant.dtype)
        return ModeAmplitudes(*self.orbit(2 * t / (self.p * self.time_constant)))

    def vector_field(self, t: Float[Array, ""], state: ModeAmplitudes) -> ModeAmplitudes:
        """The flow of the modes."""
        del t
        alpha, beta, angle = state.embedding, state.readout, state.misalignment
        gain = alpha * jnp.cos(angle) / (self.p * self.time_constant)
        ratio = alpha**2 / jnp.where(beta == 0, 1.0, beta)
        turn = -(4 * beta + ratio) * jnp.sin(angle) / (self.p * self.time_constant)
        return ModeAmplitudes(2 * gain * beta, gain * alpha, turn)

    def reduce(self, model: ModularNetwork) -> ModeAmplitudes:
        """The modes of a network."""
        modes = modular_modes(model)
        return ModeAmplitudes(modes.embedding_amplitude, modes.readout_amplitude, modes.misalignment)
