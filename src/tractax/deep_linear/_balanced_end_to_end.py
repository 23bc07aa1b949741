r"""Balanced linear networks of any depth, on any loss: the map obeys a differential equation of its own.

Set-up. A network $W = W_L\cdots W_1$ with balanced layers, $W_{l+1}^\top W_{l+1} = W_l W_l^\top$, which gradient flow
keeps balanced; any differentiable loss $L(W)$ of the map, with gradient $G = \partial L/\partial W$; gradient flow
$\tau\dot W_l = -\partial L/\partial W_l - \gamma W_l$. Then

$$\tau\dot W = -\sum_{j=1}^{L} (WW^\top)^{(L-j)/L}\; G\; (W^\top W)^{(j-1)/L} \;-\; L\gamma W,$$

which for a single output reads $\tau\dot w = -\lVert w\rVert^{2-2/L}\,[\,g + (L-1)\,\hat w\,(\hat w\cdot g)\,]$ at
$\gamma = 0$. Depth is a preconditioner: it speeds up the directions in which the map is already large.

The vector field is exact. It is integrated, and the solution holds up to a horizon. The flow conserves the rank of $W$;
singular values that start at zero are held there, where rounding would make them grow.

Source: Arora, Cohen and Hazan 2018, arXiv 1802.06509. Rank, weight decay and limit are derived here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import (
    AbstractReducedFlow,
    AbstractRule,
    Assumption,
    FlowPath,
    Kind,
    enforce,
    integrate_flow,
    relative_norm,
    require,
    tolerance_for,
)
from ..rules import GradientFlow
from ._base import AbstractLinearSolution, Product, balance_matrices, check_flow, check_layers
from ._end_to_end import end_to_end
from ._map_task import MapTask
from ._network import DeepLinear
from ._task import LinearTask


class BalancedEndToEnd(AbstractLinearSolution, AbstractReducedFlow[Product]):
    r"""The input-output map of a balanced linear network of any depth, on any loss of the map.

    Build it with `from_model`. Time is in the rule's units ($\tau$ is its `time_constant`).

    **Attributes:**

    - `path`: the integrated flow.
    - `task`: a `LinearTask`, whitened or not, or a `MapTask` for any other loss.
    - `rule`: gradient flow, with or without weight decay.
    - `depth`: $L$.
    - `rank`: of the map, which the flow conserves.
    """

    path: FlowPath
    task: LinearTask | MapTask
    rule: GradientFlow
    depth: int = eqx.field(static=True)
    rank: int = eqx.field(static=True)
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls,
        model: DeepLinear,
        task: LinearTask | MapTask,
        rule: AbstractRule | None = None,
        *,
        t1: ArrayLike,
        rank: int | None = None,
        check: bool = True,
        max_steps: int = 1024,
    ) -> "BalancedEndToEnd":
        """Integrates the flow of a network's map up to `t1`, having checked that the layers are balanced.

        **Arguments:**

        - `model`, `task`, `rule`: the case. `rule` defaults to `tx.GradientFlow()`.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `rank`: how many singular values of the map are not zero. `None` measures it on the layers; under `jax.jit` it
          takes the largest that the sizes of the layers allow.
        - `check`: refuse what the theory does not cover.
        - `max_steps`: of the integration; memory for about 14 maps each is set aside.

        **Raises:**

        `ValueError` if the network does not fit the task, an assumption is violated, or the integration fails.
        """
        rule, rank = _check(model, task, rule, rank)
        if check:
            model = enforce(model, cls.__name__, cls.assumptions(model, task, rule, rank=rank))
        field = eqx.Partial(_velocity, task, rule, model.depth, rank)
        path = integrate_flow(field, Product(model.product), t1, max_steps=max_steps)
        return cls(path, task, rule, model.depth, rank)

    @classmethod
    def assumptions(
        cls, model: DeepLinear, task: LinearTask | MapTask, rule: AbstractRule | None = None, *, rank: int | None = None
    ) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        _, rank = _check(model, task, rule, rank)
        tolerance = tolerance_for(model.weights[0])
        values = jnp.linalg.svd(model.product, compute_uv=False)
        imbalances = [jnp.zeros((), values.dtype)]
        for w, d in zip(model.weights[:-1], balance_matrices(model), strict=True):
            imbalances.append(relative_norm(d, w @ w.T))
        imbalance = jnp.max(jnp.stack(imbalances))
        largest = jnp.where(values[0] == 0, 1.0, values[0])
        found = [Assumption("balanced layers, W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ", imbalance, tolerance)]
        if rank > 0:
            rounding = jnp.finfo(values.dtype).eps * max(model.product.shape)
            lowest = jnp.maximum(values[rank - 1] / largest, jnp.finfo(values.dtype).tiny)
            found.append(Assumption(f"{rank} singular values of the map above rounding", rounding / lowest, 1e-3))
        if rank < values.shape[0]:
            found.append(Assumption(f"a map of rank {rank}", values[rank] / largest, tolerance))
        return tuple(found)

    def vector_field(self, t: Any, state: Product) -> Product:
        """The flow of the map."""
        return _velocity(self.task, self.rule, self.depth, self.rank, t, state)

    def reduce(self, model: DeepLinear) -> Product:
        """The map of a network."""
        return Product(model.product)

    def product_of(self, state: Product) -> Float[Array, "out in"]:
        """The input-output map."""
        return state.product

    def limit(self) -> Product:
        r"""The map as t → ∞ on a `LinearTask`: the best one of the rank that the flow conserves.

        Best in the loss; with enough rank, the optimum. Flows can end at saddles too, so this is returned only where the
        horizon lies beyond all of them: where the loss at `t1` is lower than any but the best stationary point's.

        **Raises:**

        `ValueError` if it is not, and for weight decay, a `MapTask`, or inputs with singular covariance.
        """
        if not isinstance(self.task, LinearTask):
            raise ValueError("`limit` is known for a LinearTask only; evaluate at the horizon, t1, instead.")
        optimum = self.task.optimum
        if self.task.input_covariance is None:
            root = inverse = jnp.eye(optimum.shape[1], dtype=optimum.dtype)
        else:
            variances, axes = jnp.linalg.eigh(self.task.input_covariance)
            regular = variances[0] > variances.shape[0] * jnp.finfo(variances.dtype).eps * variances[-1]
            variances = require(variances, regular, "`limit` needs a regular input covariance; it is singular.")
            root = (axes * jnp.sqrt(variances)[None, :]) @ axes.T
            inverse = (axes / jnp.sqrt(variances)[None, :]) @ axes.T
        u, s, vt = jnp.linalg.svd(optimum @ root, full_matrices=False)
        best = (u[:, : self.rank] * s[None, : self.rank]) @ vt[: self.rank] @ inverse
        # A stationary point keeps some singular values; the next one above the best misses the weakest one that counts.
        left_out = s[self.rank] if self.rank < s.shape[0] else jnp.zeros((), s.dtype)
        rounding = s.shape[0] * jnp.finfo(s.dtype).eps * s[0]
        counts = s[: self.rank] - left_out > rounding
        gains = jnp.where(counts, s[: self.rank] ** 2 - left_out**2, jnp.inf)
        tied = ~jnp.all(counts) & (left_out > rounding)
        gap = jnp.where(tied, 0.0, jnp.min(gains, initial=jnp.inf) / 2)
        excess = self.task.loss_of_map(self.state(self.t1).product) - self.task.loss_of_map(best)
        message = (
            "`limit` needs no weight decay, and a loss at t1 below that of every saddle; here it is not. Integrate "
            "further: the flow may be on a plateau, or end at a saddle."
        )
        certain = (excess < gap) & (self.rule.weight_decay == 0)
        return Product(require(best, certain, message))


def _velocity(task: LinearTask | MapTask, rule: GradientFlow, depth: int, rank: int, t: Any, state: Product) -> Product:
    del t
    w = state.product
    decay = depth * rule.weight_decay.astype(w.dtype) * w
    return Product(-(end_to_end(w, task.gradient_of_map(w), depth, rank) + decay) / rule.time_constant.astype(w.dtype))


def _check(
    model: DeepLinear, task: LinearTask | MapTask, rule: AbstractRule | None, rank: int | None
) -> tuple[GradientFlow, int]:
    if isinstance(task, MapTask):
        if not isinstance(model, DeepLinear):
            raise ValueError(f"`model` must be a DeepLinear network; got {type(model).__name__}.")
    elif isinstance(task, LinearTask):
        check_layers(model, task)
    else:
        raise ValueError(f"`task` must be a LinearTask, or a MapTask for any other loss; got {type(task).__name__}.")
    largest = min(model.sizes)
    if rank is None:
        rank = _measured_rank(model, largest)
    if not 0 <= rank <= largest:
        raise ValueError(f"`rank` must be between 0 and {largest}, the size of the smallest layer; got {rank}.")
    return check_flow(rule, BalancedEndToEnd.__name__), rank


def _measured_rank(model: DeepLinear, largest: int) -> int:
    """On the layers, whose singular values are roots of those of the map and so stand out of rounding better."""
    ranks = []
    for w in model.weights:
        values = jnp.linalg.svd(w, compute_uv=False)
        ranks.append(jnp.sum(values > 10 * max(w.shape) * jnp.finfo(w.dtype).eps * values[0]))
    try:
        return int(jnp.min(jnp.stack(ranks)))
    except jax.errors.ConcretizationTypeError:
        return largest
