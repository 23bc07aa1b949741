r"""Jacobian homeostasis: weights drift until the Jacobian of the units is symmetric.

With $J = \partial F/\partial u$ at the equilibrium and $\varepsilon\sim\mathcal N(0, I)$,

$$\mathcal A = \mathbb E\lVert J\varepsilon - J^\top\varepsilon\rVert^2 = \lVert J - J^\top\rVert_F^2
= 2\,(\operatorname{tr}J^\top J - \operatorname{tr}J^2).$$

In a linear network $J = W - I$, and the flow $\tau\dot W = -k\nabla\mathcal A - \gamma W$ keeps the symmetric part of $W$
(but for weight decay) while its antisymmetric part falls as $e^{-8kt/\tau}$.

Loss: $k\,\mathcal A$, averaged over inputs. Time: the rule's, with time constant $\tau$.

Source: Laborieux and Zenke 2023, arXiv 2309.02214; the flow of linear networks was worked out here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind, check_matrix, check_positive, enforce
from ..descent._gradient_flow import check_flow
from ._equilibrium_network import AbstractEquilibriumModel, EquilibriumNetwork


def jacobian_asymmetry(
    model: AbstractEquilibriumModel, inputs: Float[Array, "examples in"], states: Float[Array, "examples units"]
) -> Float[Array, ""]:
    r"""$\lVert J - J^\top\rVert_F^2$ of the force at given states, averaged over examples.

    **Arguments:**

    - `model`: an equilibrium network.
    - `inputs`: one example a row.
    - `states`: of the units, one example a row; the equilibria are `jax.vmap(model)(inputs)`.
    """

    def asymmetry(x: Array, u: Array) -> Array:
        jacobian = jax.jacfwd(model.force)(u, x)
        return jnp.sum((jacobian - jacobian.T) ** 2)

    return jnp.mean(jax.vmap(asymmetry)(inputs, states))


class HomeostasisTask(AbstractTask):
    r"""The loss $k\lVert J - J^\top\rVert_F^2$, averaged over inputs.

    Its gradient holds the equilibria fixed, as a rule must that acts on each weight by itself.

    **Arguments:**

    - `inputs`: one example a row.
    - `strength`: $k\ge 0$.

    **Raises:**

    `ValueError` for a negative strength or inputs that are no matrix.
    """

    inputs: Float[Array, "examples in"]
    strength: Float[Array, ""]

    def __init__(self, inputs: PyTree, strength: ArrayLike = 1.0):
        self.inputs = check_matrix("inputs", inputs)
        self.strength = check_positive("strength", strength, zero=True, scalar=True)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of an equilibrium network."""
        states = jax.lax.stop_gradient(jax.vmap(model)(self.inputs))
        return self.strength.astype(states.dtype) * jacobian_asymmetry(model, self.inputs, states)


class HomeostasisState(eqx.Module):
    """The weights in two parts, each of shape `(units, units)`."""

    symmetric: Float[Array, "units units"]
    antisymmetric: Float[Array, "units units"]


class HomeostasisFlow(AbstractSolution[HomeostasisState]):
    r"""The weights of a linear equilibrium network under homeostasis alone.

    **Attributes:**

    - `initial`: the weights at time zero.
    - `symmetric_rate`, `antisymmetric_rate`: at which the two parts decay, $\gamma/\tau$ and $(8k + \gamma)/\tau$.
    """

    initial: HomeostasisState
    symmetric_rate: Float[Array, ""]
    antisymmetric_rate: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: Any, task: Any, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "HomeostasisFlow":
        """The solution for an `EquilibriumNetwork` without activation.

        **Arguments:**

        - `model`: the network; `check=False` takes a nonlinear one for a linear one.
        - `task`: a `HomeostasisTask`.
        - `rule`: `tx.GradientFlow`, possibly with weight decay; `None` for that with time constant one.

        **Raises:**

        `ValueError` for another task, network or rule.
        """
        assumptions = cls.assumptions(model, task, rule)
        rule = check_flow(rule, cls.__name__)
        dtype = model.weights.dtype
        decay = (rule.weight_decay / rule.time_constant).astype(dtype)
        pull = (8 * task.strength / rule.time_constant.astype(task.strength.dtype)).astype(dtype)
        solution = cls(_parts(model.weights), decay, decay + pull)
        return enforce(solution, cls.__name__, assumptions) if check else solution

    @classmethod
    def assumptions(cls, model: Any, task: Any, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: no activation."""
        if not isinstance(task, HomeostasisTask):
            raise ValueError(f"`task` must be a HomeostasisTask; got {type(task).__name__}.")
        if not isinstance(model, EquilibriumNetwork):
            raise ValueError(f"`model` must be an EquilibriumNetwork; got {type(model).__name__}.")
        check_flow(rule, cls.__name__)
        return [Assumption("linear network", jnp.asarray(0.0 if model.activation is None else 1.0), 0.0)]

    def reduce(self, model: EquilibriumNetwork) -> HomeostasisState:
        """The two parts of a network's weights."""
        return _parts(model.weights)

    def state(self, t: Float[Array, ""]) -> HomeostasisState:
        """The weights at time `t`."""
        t = t.astype(self.symmetric_rate.dtype)
        return HomeostasisState(
            _decayed(self.initial.symmetric, self.symmetric_rate, t),
            _decayed(self.initial.antisymmetric, self.antisymmetric_rate, t),
        )

    def limit(self) -> HomeostasisState:
        """The weights as t → ∞."""
        return self.state(jnp.full_like(self.symmetric_rate, jnp.inf))

    def vector_field(self, t: Float[Array, ""], state: HomeostasisState) -> HomeostasisState:
        """The velocity of the two parts."""
        del t
        return HomeostasisState(-self.symmetric_rate * state.symmetric, -self.antisymmetric_rate * state.antisymmetric)


def _parts(weights: Float[Array, "units units"]) -> HomeostasisState:
    return HomeostasisState((weights + weights.T) / 2, (weights - weights.T) / 2)


def _decayed(x: Array, rate: Array, t: Array) -> Array:
    return jnp.exp(-jnp.where(rate == 0, 0.0, rate * t)) * x
