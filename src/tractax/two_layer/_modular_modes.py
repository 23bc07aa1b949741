r"""Modular addition from small outputs: every neuron and every frequency learns on its own.

Set-up. $f_j(x, y) = \sum_m\xi_m[j]\,(\theta_m[x] + \theta_m[y])^2$ for residues modulo an odd $p$, all $p^2$ pairs, and
the correlation loss $L = -\tfrac1{p^2}\sum_{x,y}\big(f_{x+y} - \tfrac1p\sum_jf_j\big)$, of which cross-entropy and the
squared error are the limit of small outputs. Gradient flow $\tau\dot\theta = -\partial L$ on all weights. With

$$\theta[x] = \mathrm{const} + \mathrm{Re}\sum_{k=1}^{(p-1)/2}a_ke^{2\pi ikx/p},\qquad \xi[j] = \mathrm{const} +
\mathrm{Re}\sum_kb_ke^{2\pi ikj/p}$$

the constants stay, and every pair of complex amplitudes $a = \alpha e^{i\varphi}$, $b = \beta e^{i\psi}$ obeys

$$\tau\dot a = \tfrac2p\,\bar a\,b,\qquad \tau\dot b = \tfrac1p\,a^2.$$

It conserves $C = \alpha^2 - 2\beta^2$ and $I = \mathrm{Im}\,a^2\bar b = \alpha^2\beta\sin D$, where $D = 2\varphi - \psi$
is the misalignment of the phases. $\mathrm{Re}\,a^2\bar b$ grows, $D$ turns towards zero, and the amplitudes diverge in a
finite time.

Source: He, Wang, Chen and Yang 2026, arXiv 2602.16849; the conserved $I$ is derived here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float, PyTree

from ..core import AbstractReducedFlow, AbstractRule, Assumption, FlowPath, Kind, enforce, integrate_flow, require
from ..rules import GradientFlow, check_flow, no_weight_decay
from ._modular_addition import ModularAddition
from ._modular_network import ModularNetwork, check_modulus, same_function
from ._phase_orbit import PhaseOrbit


class ModularModes(eqx.Module):
    r"""The Fourier modes of a modular network, one complex amplitude for each neuron, frequency and layer.

    **Attributes:**

    - `embedding`: real and imaginary part of $a$, shape `(neurons, frequencies, 2)`.
    - `readout`: of $b$, of the same shape.
    """

    embedding: Float[Array, "*times neurons frequencies 2"]
    readout: Float[Array, "*times neurons frequencies 2"]

    @property
    def embedding_amplitude(self) -> Float[Array, "*times neurons frequencies"]:
        r"""$\alpha = |a|$."""
        return _length(self.embedding)

    @property
    def readout_amplitude(self) -> Float[Array, "*times neurons frequencies"]:
        r"""$\beta = |b|$."""
        return _length(self.readout)

    @property
    def embedding_phase(self) -> Float[Array, "*times neurons frequencies"]:
        r"""$\varphi = \arg a$."""
        return jnp.arctan2(self.embedding[..., 1], self.embedding[..., 0])

    @property
    def readout_phase(self) -> Float[Array, "*times neurons frequencies"]:
        r"""$\psi = \arg b$."""
        return jnp.arctan2(self.readout[..., 1], self.readout[..., 0])

    @property
    def coupling(self) -> Complex[Array, "*times neurons frequencies"]:
        r"""$a^2\bar b$: its real part grows, its imaginary part is conserved, its argument is the misalignment."""
        coupling = _complex(self.embedding) ** 2 * jnp.conj(_complex(self.readout))
        # Phases that are aligned, or opposed, up to rounding.
        torsion, climb = jnp.imag(coupling), jnp.real(coupling)
        straight = jnp.abs(torsion) <= 8 * jnp.finfo(climb.dtype).eps * jnp.abs(climb)
        return jax.lax.complex(climb, jnp.where(straight, 0.0, torsion))

    @property
    def misalignment(self) -> Float[Array, "*times neurons frequencies"]:
        r"""$D = 2\varphi - \psi$, between $-\pi$ and $\pi$; zero where an amplitude vanishes."""
        coupling = self.coupling
        absent = coupling == 0
        return jnp.arctan2(jnp.imag(coupling), jnp.where(absent, 1.0, jnp.real(coupling)))

    @property
    def imbalance(self) -> Float[Array, "*times neurons frequencies"]:
        r"""$C = \alpha^2 - 2\beta^2$, which the flow conserves."""
        return jnp.sum(self.embedding**2, axis=-1) - 2 * jnp.sum(self.readout**2, axis=-1)

    @property
    def torsion(self) -> Float[Array, "*times neurons frequencies"]:
        r"""$I = \alpha^2\beta\sin D$, which the flow conserves."""
        return jnp.imag(self.coupling)


class ModularModesFlow(AbstractReducedFlow[ModularModes]):
    """Amplitudes and phases of all modes of a modular network over time, until the first of them diverges.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`). `PhaseLocking` is the same
    in closed form, but for the phases of the two layers apart.

    **Attributes:**

    - `path`: the integrated modes.
    - `p`: the modulus.
    - `time_constant`: $\\tau$.
    """

    path: FlowPath
    p: int = eqx.field(static=True)
    time_constant: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: PyTree,
        rule: AbstractRule | None = None,
        *,
        t1: ArrayLike,
        check: bool = True,
        max_steps: int = 4096,
    ) -> "ModularModesFlow":
        """Integrates the modes of a network up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: the case. `rule` defaults to `tx.GradientFlow()`.
        - `t1`: the horizon, below the time at which the first mode diverges (`PhaseLocking.blow_up_times`).
        - `check`: refuse what the theory does not cover.
        - `max_steps`: of the integration.

        **Raises:**

        `ValueError` if the network does not fit the task, if $p$ is even, if an assumption fails, or if a mode diverges
        before `t1`.
        """
        modes, rule = modes_of(model, task), check_flow(rule, cls.__name__)
        if check:
            modes = enforce(modes, cls.__name__, modular_assumptions(model, task, rule))
        dtype = modes.embedding.dtype
        tau = rule.time_constant.astype(dtype)
        end = tau * jnp.min(orbits(modes).duration()) * task.p / 2
        horizon = jnp.asarray(t1, dtype)
        message = "`t1` must be below the time at which the first mode diverges; see PhaseLocking.blow_up_times."
        horizon = require(horizon, jnp.all(horizon < end), message)
        path = integrate_flow(eqx.Partial(modular_velocity, task.p, tau), modes, horizon, max_steps=max_steps)
        return cls(path, task.p, tau)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        return modular_assumptions(model, task, check_flow(rule, cls.__name__))

    def vector_field(self, t: Any, state: ModularModes) -> ModularModes:
        """The flow of the modes."""
        return modular_velocity(self.p, self.time_constant, t, state)

    def reduce(self, model: ModularNetwork) -> ModularModes:
        """The modes of a network."""
        return modular_modes(model)


def modular_modes(model: PyTree) -> ModularModes:
    r"""The Fourier modes of a network, $a_{mk} = \tfrac2p\sum_x\theta_m[x]e^{-2\pi ikx/p}$ and $b_{mk}$ likewise.

    **Arguments:**

    - `model`: a `ModularNetwork` with odd $p$.

    **Raises:**

    `ValueError` for another model or an even $p$.
    """
    if not isinstance(model, ModularNetwork):
        raise ValueError(f"`model` must be a ModularNetwork; got {type(model).__name__}.")
    p = check_modulus(model.p, odd=True)

    def amplitudes(weights: Array) -> Array:
        transform = (2 / p) * jnp.fft.rfft(weights, axis=-1)[..., 1:]
        return jnp.stack([jnp.real(transform), jnp.imag(transform)], axis=-1)

    return ModularModes(amplitudes(model.embedding), amplitudes(model.readout))


def modular_velocity(p: int, tau: Float[Array, ""], t: Any, state: ModularModes) -> ModularModes:
    """The flow of the modes."""
    del t
    a, b = _complex(state.embedding), _complex(state.readout)
    moved = 2 * jnp.conj(a) * b, a**2
    embedding, readout = (jnp.stack([jnp.real(v), jnp.imag(v)], axis=-1) / (p * tau) for v in moved)
    return ModularModes(embedding, readout)


def modes_of(model: PyTree, task: PyTree) -> ModularModes:
    """The modes, if network and task fit each other."""
    if not isinstance(task, ModularAddition):
        raise ValueError(f"`task` must be a ModularAddition; got {type(task).__name__}.")
    modes = modular_modes(model)
    if model.p != task.p:
        raise ValueError(f"`model` must be for p = {task.p} to fit `task`; got p = {model.p}.")
    return modes


def modular_assumptions(model: ModularNetwork, task: ModularAddition, rule: GradientFlow) -> tuple[Assumption, ...]:
    """What the flow of the modes takes for granted."""
    activation = 0.0 if same_function(model.activation, jnp.square) else 1.0
    loss = 0.0 if task.loss_name == "correlation" else 1.0
    limit = 'loss="correlation" (of which the other losses are the limit of small outputs)'
    return (
        Assumption("quadratic activation", activation, 0.0),
        Assumption(limit, loss, 0.0),
        no_weight_decay(rule),
    )


@eqx.filter_jit
def orbits(modes: ModularModes) -> PhaseOrbit:
    """The orbits of all modes, in units of $p\\tau/2$."""
    return PhaseOrbit(modes.embedding_amplitude, modes.readout_amplitude, modes.coupling)


def _length(parts: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
    """The absolute value, with slope zero at zero."""
    absent = jnp.all(parts == 0, axis=-1)
    return jnp.where(absent, 0.0, jnp.linalg.norm(jnp.where(absent[..., None], 1.0, parts), axis=-1))


def _complex(parts: Float[Array, "*shape 2"]) -> Complex[Array, "*shape"]:
    return jax.lax.complex(parts[..., 0], parts[..., 1])
