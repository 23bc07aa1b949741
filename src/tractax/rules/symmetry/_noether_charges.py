r"""Noether charges: what gradient flow conserves where the loss has a symmetry, and how steps break it.

Set-up: any model, task and block of parameters $w$ that a symmetry $\dot w = G(w)$ moves without a change of the loss,
so that the gradient has $\langle g, G(w)\rangle = 0$ on every batch. The charge is $Q = \langle w, G(w)\rangle$: the sum
of the block for translations ($G = 1$), $\lVert w\rVert^2$ for scale, $\lVert w_1\rVert^2 - \lVert w_2\rVert^2$ for
rescaling. With $d$ the degree of the charge, 1 or 2:

- gradient flow with weight decay $\gamma$: $Q(t) = Q(0)\,e^{-d\gamma t/\tau}$;
- inertial flow $m\ddot w + c\dot w + \gamma w = -g$: for translations $m\ddot Q + c\dot Q + \gamma Q = 0$; for scale
  $m\ddot Q + c\dot Q + 2\gamma Q = 2m\lVert\dot w\rVert^2$, where motion itself breaks the symmetry; and for rotations
  the angular momentum $\langle\dot w, G(w)\rangle$ decays as $e^{-ct/m}$;
- a step $w\leftarrow(1-\eta\gamma)w - \eta g$, on any batch: $Q\leftarrow(1-\eta\gamma)Q$ for translations, and
  $Q\leftarrow(1-\eta\gamma)^2Q + \eta^2Q(g)$ for the others, with the charge $Q(g)$ of the gradient.

All of it is exact. Loss: the task's own, without the penalty. Time: the rule's.

Sources: Kunin, Sagastuy-Brena, Ganguli, Yamins, Tanaka 2021 (arXiv 2012.04728); Tanaka, Kunin 2021 (arXiv 2105.02716).
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ...core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    check_finite,
    check_fraction,
    check_positive,
    enforce,
    require,
    standard_normal,
    tolerance_for,
)
from ...special import exprel
from ..descent._gradient_flow import GradientFlow, check_flow
from ..momentum._inertial_flow import InertialFlow
from ._symmetry import AbstractSymmetry, RotationSymmetry, TranslationSymmetry


class NoetherCharge(eqx.Module):
    """The charge of every symmetry of a kind.

    **Attributes:**

    - `charge`: $Q$, one number for each symmetry.
    """

    charge: Float[Array, "..."]


class NoetherCharges(AbstractSolution[NoetherCharge]):
    r"""The Noether charges of a network under gradient flow, or under inertial flow for translations.

    Build it with `from_model`. What discrete steps do is in `charge_after_step`.

    **Attributes:**

    - `symmetry`: which symmetry of the loss, and of which block.
    - `initial`: the charges at time zero.
    - `mass`, `friction`, `decay`: of $m\ddot Q + c\dot Q + rQ = 0$; gradient flow has $m = 0$ and $c = \tau$.
    """

    symmetry: AbstractSymmetry
    initial: NoetherCharge
    mass: Float[Array, ""]
    friction: Float[Array, ""]
    decay: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: AbstractTask,
        rule: AbstractRule | None = None,
        *,
        symmetry: PyTree,
        check: bool = True,
    ) -> "NoetherCharges":
        """The charges of a network, having checked that the loss has the symmetry.

        **Arguments:**

        - `model`, `task`: any.
        - `rule`: `tx.GradientFlow`, or `InertialFlow` for a `TranslationSymmetry`; `None` for `tx.GradientFlow()`.
        - `symmetry`: `TranslationSymmetry`, `ScaleSymmetry` or `RescaleSymmetry`.
        - `check`: whether to refuse a loss that does not have the symmetry.

        **Raises:**

        `ValueError` for another rule or symmetry, or a loss without the symmetry.
        """
        rule = _check_rule(rule, symmetry)
        charge = symmetry.charge(model)
        inertial = isinstance(rule, InertialFlow)
        solution = cls(
            symmetry=symmetry,
            initial=NoetherCharge(charge),
            mass=rule.mass.astype(charge.dtype) if inertial else jnp.zeros((), charge.dtype),
            friction=(rule.friction if inertial else rule.time_constant).astype(charge.dtype),
            decay=symmetry.degree * rule.weight_decay.astype(charge.dtype),
        )
        if not check:
            return solution
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule, symmetry=symmetry))

    @classmethod
    def assumptions(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, symmetry: PyTree
    ) -> tuple[Assumption, ...]:
        """What the theory takes for granted: gradients near the network are orthogonal to the generator."""
        _check_rule(rule, symmetry)
        violation = _violation(symmetry, model, task)
        return (Assumption("a symmetry of the loss, ⟨g, G(w)⟩ = 0", violation, tolerance_for(violation)),)

    def state(self, t: Float[Array, ""]) -> NoetherCharge:
        """The charges at time `t`."""
        t = t.astype(self.decay.dtype)
        return NoetherCharge(_relaxation(self.mass, self.friction, self.decay, t) * self.initial.charge)

    def limit(self) -> NoetherCharge:
        """The charges as t → ∞: zero with weight decay, otherwise what they were.

        **Raises:**

        `ValueError` for inertial flow with weight decay and no friction, whose charges oscillate for ever.
        """
        settles = (self.friction > 0) | (self.decay == 0)
        message = "NoetherCharges has no limit: without friction, charges oscillate for ever."
        charge = jnp.where(self.decay > 0, jnp.zeros_like(self.initial.charge), self.initial.charge)
        return NoetherCharge(require(charge, settles, message))

    def vector_field(self, t: Any, state: NoetherCharge) -> NoetherCharge:
        """The velocity of the charges under gradient flow."""
        del t
        message = "The charges of inertial flow obey an equation of second order, not one in the charges alone."
        charge = require(state.charge, self.mass == 0, message)
        return NoetherCharge(-self.decay / self.friction * charge)

    def reduce(self, model: PyTree) -> NoetherCharge:
        """The charges of an actual network."""
        return NoetherCharge(self.symmetry.charge(model))


def charge_after_step(
    symmetry: AbstractSymmetry,
    model: PyTree,
    gradient: PyTree,
    learning_rate: ArrayLike,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    r"""The charges after one step of gradient descent, $w\leftarrow(1-\eta\gamma)w - \eta g$, exactly.

    **Arguments:**

    - `symmetry`: of the loss. It is not checked: where it does not hold, neither does the result.
    - `model`: the network before the step.
    - `gradient`: of the loss on all data or on any batch, without the penalty.
    - `learning_rate`, `weight_decay`: $\eta, \gamma \ge 0$.

    **Returns:**

    $(1-\eta\gamma)Q$ for translations and $(1-\eta\gamma)^2Q + \eta^2Q(g)$ for the others, of the shape of the charges.

    **Raises:**

    `ValueError` for a negative learning rate or decay.
    """
    charge = symmetry.charge(model)
    eta = check_positive("learning_rate", learning_rate, zero=True, scalar=True).astype(charge.dtype)
    kept = 1 - eta * check_positive("weight_decay", weight_decay, zero=True, scalar=True).astype(charge.dtype)
    if symmetry.degree == 1:
        return kept * charge
    return kept**2 * charge + eta**2 * symmetry.charge(gradient)


def translation_charge_after_steps(
    charge: ArrayLike,
    steps: ArrayLike,
    learning_rate: ArrayLike,
    momentum: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    r"""The charges of a translation after any number of steps with momentum, exactly.

    The steps are $v\leftarrow\beta v - \eta(g + \gamma w)$, $w\leftarrow w + v$ from $v = 0$, on any batches, as
    `optax.chain(optax.add_decayed_weights(γ), optax.sgd(η, momentum=β))` takes them.

    **Arguments:**

    - `charge`: $Q$ at the start, of any shape.
    - `steps`: how many, a whole number that is not negative.
    - `learning_rate`, `weight_decay`: $\eta, \gamma \ge 0$.
    - `momentum`: $0 \le \beta < 1$.

    **Returns:**

    The charges, of the shape of `charge`.

    **Raises:**

    `ValueError` for numbers out of these ranges.
    """
    charge = check_finite("charge", charge)
    dtype = charge.dtype
    eta = check_positive("learning_rate", learning_rate, zero=True, scalar=True).astype(dtype)
    beta = check_fraction("momentum", momentum).astype(dtype)
    pull = eta * check_positive("weight_decay", weight_decay, zero=True, scalar=True).astype(dtype)
    count = jnp.asarray(steps)
    if count.ndim != 0 or not jnp.issubdtype(count.dtype, jnp.integer):
        raise ValueError(f"`steps` must be a whole number; got {steps!r}.")
    count = require(count, count >= 0, f"`steps` must not be negative; got {steps}.")
    # (Q, q) ← M (Q, q), where q is the sum of the velocities.
    matrix = jnp.stack([jnp.stack([1 - pull, beta]), jnp.stack([-pull, beta])])
    return _matrix_power(matrix, count)[0, 0] * charge


def _matrix_power(matrix: Float[Array, "n n"], count: Int[Array, ""]) -> Float[Array, "n n"]:
    """By repeated squaring."""

    def square(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        power, base, left = carry
        power = jnp.where(left % 2 == 1, base @ power, power)
        # Not squared beyond need, since unstable matrices overflow.
        return (power, jnp.where(left > 1, base @ base, base), left // 2), None

    start = (jnp.eye(matrix.shape[0], dtype=matrix.dtype), matrix, count)
    return jax.lax.scan(square, start, length=jnp.iinfo(count.dtype).bits)[0][0]


def _relaxation(mass: Array, friction: Array, decay: Array, t: Array) -> Array:
    r"""The solution of $m\ddot q + c\dot q + rq = 0$ from $q = 1$ at rest, also for $m = 0$."""
    inert = mass > 0
    t = jnp.minimum(t, jnp.sqrt(jnp.finfo(t.dtype).max))
    flow = jnp.exp(-jnp.where(decay > 0, decay / jnp.where(inert, 1.0, friction) * t, 0.0))
    mass = jnp.where(inert, mass, 1.0)
    damping, stiffness = friction / (2 * mass), decay / mass
    gap = damping**2 - stiffness
    over, under = gap > 0, gap < 0
    # Overdamped, critical included: two rates, of which the slower one is written without a difference.
    spread = jnp.where(over, jnp.sqrt(jnp.where(over, gap, 1.0)), 0.0)
    slow = jnp.where(stiffness > 0, stiffness / jnp.where(stiffness > 0, damping + spread, 1.0), 0.0)
    late = jnp.where(stiffness > 0, jnp.exp(-slow * t), 1.0)
    decayed = (1 + jnp.exp(-2 * spread * t)) / 2 + damping * t * exprel(-2 * spread * t)
    # Underdamped.
    frequency = jnp.where(under, jnp.sqrt(jnp.where(under, -gap, 1.0)), 1.0)
    turned = jnp.cos(frequency * t) + damping / frequency * jnp.sin(frequency * t)
    moving = jnp.where(under, jnp.exp(-damping * t) * turned, late * decayed)
    return jnp.where(inert, moving, flow)


def _check_rule(rule: AbstractRule | None, symmetry: PyTree) -> GradientFlow | InertialFlow:
    if not isinstance(symmetry, AbstractSymmetry):
        raise ValueError(f"`symmetry` must be one, such as ScaleSymmetry; got {type(symmetry).__name__}.")
    if isinstance(symmetry, RotationSymmetry):
        raise ValueError("`symmetry` must have a charge of the weights; rotations have an angular `momentum` instead.")
    if not isinstance(rule, InertialFlow):
        return check_flow(rule, NoetherCharges.__name__)
    if not isinstance(symmetry, TranslationSymmetry):
        raise ValueError(
            "`symmetry` must be a TranslationSymmetry for NoetherCharges under inertial flow, where motion breaks the "
            f"others; got {type(symmetry).__name__}."
        )
    return rule


@eqx.filter_jit
def _violation(symmetry: AbstractSymmetry, model: PyTree, task: AbstractTask) -> Float[Array, ""]:
    """How far gradients near a network are from orthogonal to the generator; infinite if its own is not defined."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    gradient = jax.grad(lambda params: task.loss(eqx.combine(params, static)))
    # At a minimum gradients are rounding, and orthogonal to nothing: look beside the network as well as at it.
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    beside = jax.tree.unflatten(structure, [_beside(key, leaf) for key, leaf in zip(keys, leaves, strict=True)])
    defined = jnp.all(jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradient(params))]))
    return jnp.where(defined, symmetry.violation(beside, gradient(beside)), jnp.inf)


def _beside(key: Array, leaf: Array) -> Array:
    size = jnp.sqrt(jnp.mean(leaf**2))
    return leaf + 0.1 * jnp.where(size > 0, size, 1.0) * standard_normal(key, leaf.shape, leaf.dtype)
