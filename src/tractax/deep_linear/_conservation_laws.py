r"""What training conserves: the imbalance of neighbouring layers of a linear network.

Set-up. A linear network $W_L\cdots W_1$; any loss of the map; $G_l = \partial L/\partial W_l$. Because the loss sees
only the product, $W_{l+1}^\top G_{l+1} = G_l W_l^\top$ at every hidden layer, whatever the loss, data and depth. Hence,
for the balance matrices $D_l = W_{l+1}^\top W_{l+1} - W_l W_l^\top$:

- gradient flow conserves them; with the penalty $\tfrac\gamma2\sum_l\lVert W_l\rVert^2$ they decay as
  $e^{-2\gamma t/\tau}$;
- with unequal rates $r_l$ the conserved ones are $D_l = W_{l+1}^\top W_{l+1}/r_{l+1} - W_l W_l^\top/r_l$;
- a step of gradient descent changes them, exactly, to
  $(1-\eta\gamma)^2 D_l + \eta^2\,(G_{l+1}^\top G_{l+1} - G_l G_l^\top)$, mini-batches included, so that over a fixed time
  they drift by $\eta\int(G_{l+1}^\top G_{l+1} - G_l G_l^\top)\,dt$ plus terms of order $\eta^2$.

Sign descent, Adam and other preconditioners conserve none of this; momentum, only in the limit of small steps.

Source: Du, Hu and Lee 2018, arXiv 1806.00900; and for any depth Arora, Cohen and Hazan 2018, arXiv 1802.06509. Decay,
rates, the exact step and the drift are derived here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    check_positive,
    enforce,
    integrate_flow,
    relative_norm,
    require,
    tolerance_for,
)
from ..rules import GradientFlow
from ._base import balance_matrices, check_flow
from ._network import DeepLinear


class Balance(eqx.Module):
    r"""The imbalance of neighbouring layers.

    **Attributes:**

    - `matrices`: $D_l = W_{l+1}^\top W_{l+1} - W_l W_l^\top$ (weighted by $1/r$ where rates are unequal), one of shape
      `(hidden, hidden)` for each hidden layer.
    """

    matrices: tuple[Float[Array, "_ _"], ...]


class ConservationLaws(AbstractSolution[Balance]):
    r"""The balance matrices of a linear network under gradient flow: constant, or decaying with the weights.

    Build it with `from_model`, for any task whose loss sees the network through its map. Time is in the rule's units
    ($\tau$ is its `time_constant`).

    **Attributes:**

    - `initial`: the matrices at time zero.
    - `rates`: relative learning rates of the layers, which weight the matrices.
    - `decay`: the rate $2\gamma r/\tau$ at which weight decay shrinks the matrices.
    """

    initial: Balance
    rates: Float[Array, " layers"]
    decay: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: DeepLinear, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "ConservationLaws":
        """The conserved matrices of a network, having checked that the task's loss conserves them.

        **Raises:**

        `ValueError` if the network has one layer only, a layer does not learn, or an assumption is violated.
        """
        if check:
            model = enforce(model, cls.__name__, cls.assumptions(model, task, rule))
        rule, rates = _check(model, rule)
        decay = 2 * rule.weight_decay.astype(rates.dtype) * rates[0] / rule.time_constant.astype(rates.dtype)
        return cls(_weighted(model, rates), rates, decay)

    @classmethod
    def assumptions(
        cls, model: DeepLinear, task: AbstractTask, rule: AbstractRule | None = None
    ) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        rule, rates = _check(model, rule)
        loss, gradient = jax.value_and_grad(task.loss)(model)
        violations = []
        for w, g, w_next, g_next in zip(
            model.weights[:-1], gradient.weights[:-1], model.weights[1:], gradient.weights[1:], strict=True
        ):
            # The loss itself sets the scale of rounding at a minimum, where the gradients vanish.
            scale = jnp.linalg.norm(w) * jnp.linalg.norm(g) + jnp.linalg.norm(w_next) * jnp.linalg.norm(g_next)
            violations.append(relative_norm(w_next.T @ g_next - g @ w.T, scale + jnp.abs(loss)))
        unequal = jnp.where(rule.weight_decay > 0, relative_norm(rates - rates[0], rates), 0.0)
        return (
            Assumption(
                "a loss of the product of the layers, W_{l+1}ᵀ G_{l+1} = G_l W_lᵀ",
                jnp.max(jnp.stack(violations)),
                tolerance_for(rates),
            ),
            Assumption("equal rates for all layers where weights decay", unequal, tolerance_for(rates)),
        )

    def state(self, t: Float[Array, ""]) -> Balance:
        """The matrices at time `t`."""
        decaying = self.decay > 0
        shrunk = jnp.exp(-self.decay * jnp.where(decaying, t.astype(self.decay.dtype), 0.0))
        return jax.tree.map(lambda d: shrunk * d, self.initial)

    def limit(self) -> Balance:
        """The matrices as t → ∞: unchanged, or zero under weight decay."""
        return self.state(jnp.asarray(jnp.inf, self.decay.dtype))

    def vector_field(self, t: Any, state: Balance) -> Balance:
        """The velocity of the matrices."""
        del t
        return jax.tree.map(lambda d: -self.decay * d, state)

    def reduce(self, model: DeepLinear) -> Balance:
        """The matrices of a network."""
        return _weighted(model, self.rates)


def balance_after_step(
    model: DeepLinear, gradient: DeepLinear, learning_rate: ArrayLike, weight_decay: ArrayLike = 0.0
) -> Balance:
    r"""The balance matrices after one step of gradient descent, exactly.

    **Arguments:**

    - `model`: the network before the step.
    - `gradient`: of the loss, without the penalty: `jax.grad(task.loss)(model)`, or that of a mini-batch.
    - `learning_rate`: $\eta$.
    - `weight_decay`: $\gamma$; the step is $W_l - \eta\,(G_l + \gamma W_l)$.

    **Returns:**

    $(1-\eta\gamma)^2 D_l + \eta^2\,(G_{l+1}^\top G_{l+1} - G_l G_l^\top)$ for each hidden layer.
    """
    dtype = model.weights[0].dtype
    eta = check_positive("learning_rate", learning_rate, zero=True).astype(dtype)
    gamma = check_positive("weight_decay", weight_decay, zero=True).astype(dtype)
    before, added = balance_matrices(model), balance_matrices(gradient)
    return Balance(tuple((1 - eta * gamma) ** 2 * d + eta**2 * g for d, g in zip(before, added, strict=True)))


def balance_drift(model: DeepLinear, task: AbstractTask, t1: ArrayLike, *, max_steps: int = 1024) -> Balance:
    r"""How fast finite steps break the conservation laws, $\int_0^{t_1}(G_{l+1}^\top G_{l+1} - G_l G_l^\top)\,dt$.

    Gradient descent with learning rate $\eta$ moves the balance matrices by $\eta$ times this, plus terms of order
    $\eta^2$, in the time from zero to `t1` ($\tau = 1$: in $t_1/\eta$ steps).

    **Arguments:**

    - `model`: the network at time zero.
    - `task`: any task whose loss sees the network through its map.
    - `t1`: a time, positive.
    - `max_steps`: of the integration of the gradient flow.
    """
    start = (model, jax.tree.map(jnp.zeros_like, Balance(balance_matrices(model))))
    path = integrate_flow(eqx.Partial(_drifting, task), start, t1, max_steps=max_steps)
    return path.evaluate(path.t1)[1]


def _drifting(task: AbstractTask, t: Any, state: tuple[DeepLinear, Balance]) -> tuple[DeepLinear, Balance]:
    del t
    gradient = jax.grad(task.loss)(state[0])
    return jax.tree.map(jnp.negative, gradient), Balance(balance_matrices(gradient))


def _weighted(model: DeepLinear, rates: Float[Array, " layers"]) -> Balance:
    scaled = tuple(w / jnp.sqrt(r) for w, r in zip(model.weights, rates, strict=True))
    return Balance(balance_matrices(DeepLinear(scaled)))


def _check(model: DeepLinear, rule: AbstractRule | None) -> tuple[GradientFlow, Float[Array, " layers"]]:
    if not isinstance(model, DeepLinear) or model.depth < 2:
        found = f"{model.depth} layer" if isinstance(model, DeepLinear) else type(model).__name__
        raise ValueError(f"`model` must be a DeepLinear network of two layers or more; got {found}.")
    rule = check_flow(rule, ConservationLaws.__name__, rates=True)
    dtype = model.weights[0].dtype
    if rule.rates is None:
        return rule, jnp.ones(model.depth, dtype)
    if rule.rates.shape != (model.depth,):
        raise ValueError(f"`rule` must have one rate for each of the {model.depth} layers; got {rule.rates.shape}.")
    rates = require(rule.rates, jnp.all(rule.rates > 0), f"`rule` must let every layer learn; got rates {rule.rates}.")
    return rule, rates.astype(dtype)
