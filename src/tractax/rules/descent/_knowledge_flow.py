r"""Structured knowledge accumulation: units without labels that descend the entropy of their own decisions.

Set-up. A layer has logits $z = Wx$ and decides with probability $D = \sigma(z)$. Its entropy, defined as
$H = -\tfrac1{\ln2}\int_{-\infty}^z z'\,dD$, equals Shannon's entropy of a yes or no, in bits,

$$H(z) = \frac{\mathrm{softplus}(z) - z\,\sigma(z)}{\ln2},\qquad
\frac{\partial H}{\partial z} = -\frac{z\,D(1 - D)}{\ln2}.$$

Gradient flow of the entropy, summed over units and averaged over $n$ inputs that are orthogonal to each other, moves
every logit by itself,

$$\tau\dot z = \frac{\kappa}{\ln2}\,z\,D(1 - D),\quad\kappa = \frac{\lVert x\rVert^2}n,\qquad
2\,\bigl[\ln\lvert z\rvert + \mathrm{Chi}(\lvert z\rvert)\bigr] = \text{const} + \frac{\kappa\,t}{\tau\ln2}.$$

Units become ever surer of what they happen to think at the start: the sign of $z$ never changes, and $\lvert z\rvert$
grows first exponentially, then as $\ln t$. At $z = 0$ nothing moves.

The action $\int z\,\sigma'(z)\,\dot z\,dt$, from which the source would derive the dynamics, is the integral of a total
derivative. Every path between two ends is a stationary point of it, so it selects no dynamics; the flow here is that of
the source's update, $W\leftarrow W - \eta\,\partial H/\partial W$.

Time: $t = \eta k$ for $k$ steps of learning rate $\eta$, up to an error of $O(\eta)$; that is all there is to an
invariance under $\eta k$. Source: Mahi 2025 (arXiv 2504.03214).
"""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    as_float_array,
    check_finite,
    check_matrix,
    enforce,
    relative_norm,
    tolerance_for,
)
from ...special import cosh_integral, monotone_inverse
from ._gradient_flow import check_flow
from ._weight_decay import no_weight_decay

_LOG_TWO = math.log(2)


def decision_entropy(logits: ArrayLike) -> Float[Array, "..."]:
    r"""$H(z) = (\mathrm{softplus}(z) - z\,\sigma(z))/\ln2$, the entropy of a decision in bits: 1 at zero, 0 at infinity.

    **Arguments:**

    - `logits`: $z$, any numbers.
    """
    size = jnp.abs(as_float_array("logits", logits))
    # Beyond, the product vanishes in every precision; at infinity it would not be a number.
    bounded = jnp.minimum(size, 1e4)
    return (jnp.log1p(jnp.exp(-size)) + bounded * jax.nn.sigmoid(-bounded)) / jnp.asarray(_LOG_TWO, size.dtype)


def tensor_net(logits: ArrayLike) -> Float[Array, "..."]:
    r"""$\sum_k(D_k - \partial H/\partial z_k)(z_{k+1} - z_k)$ over the steps of a run, for every logit.

    It is the left sum of an integral that depends on the ends only, $\mathrm{softplus}(z) - H(z)$ between them.

    **Arguments:**

    - `logits`: at all steps, shape `(steps, ...)`.
    """
    z = check_finite("logits", logits)
    if z.ndim == 0:
        raise ValueError("`logits` must have a leading axis of steps; got a scalar.")
    return jnp.sum((jax.nn.sigmoid(z) - _entropy_slope(z))[:-1] * jnp.diff(z, axis=0), axis=0)


class KnowledgeLayer(eqx.Module):
    r"""Units with logits $z = Wx$.

    **Arguments:**

    - `weights`: $W$, shape `(units, in)`.

    **Raises:**

    `ValueError` if they are no finite matrix.
    """

    weights: Float[Array, "units in"]

    def __init__(self, weights: PyTree):
        self.weights = check_matrix("weights", weights)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " units"]:
        """The logits for one input."""
        return self.weights @ x


class EntropyTask(AbstractTask):
    """The entropy of a model's decisions in bits, summed over its outputs and averaged over inputs; there are no labels.

    **Arguments:**

    - `inputs`: one example a row, shape `(examples, in)`.

    **Raises:**

    `ValueError` if they are no finite matrix.
    """

    inputs: Float[Array, "examples in"]

    def __init__(self, inputs: PyTree):
        self.inputs = check_matrix("inputs", inputs)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The entropy."""
        return _mean_entropy(jax.vmap(model)(self.inputs))


class KnowledgeState(eqx.Module):
    """Logits, shape `(examples, units)`, and the entropy, a scalar."""

    logits: Float[Array, "examples units"]
    entropy: Float[Array, ""]


class KnowledgeFlow(AbstractSolution[KnowledgeState]):
    r"""The logits of a `KnowledgeLayer` on orthogonal inputs under gradient flow of the entropy.

    **Attributes:**

    - `task`: the task.
    - `initial`: the logits at time zero, shape `(examples, units)`.
    - `rates`: $\kappa/(\tau\ln2)$ of every example, shape `(examples,)`.
    """

    task: EntropyTask
    initial: Float[Array, "examples units"]
    rates: Float[Array, " examples"]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "KnowledgeFlow":
        """The solution for a layer and a data set.

        **Arguments:**

        - `model`: a `KnowledgeLayer`.
        - `task`: an `EntropyTask` with orthogonal inputs; a single one always is.
        - `rule`: `tx.GradientFlow` without weight decay; `None` for that with time constant one.
        - `check`: whether to refuse inputs that are not orthogonal.

        **Raises:**

        `ValueError` for another model, task or rule, weight decay, or inputs that are not orthogonal.
        """
        assumptions = cls.assumptions(model, task, rule)
        rule = check_flow(rule, cls.__name__)
        initial = jax.vmap(model)(task.inputs)
        kappa = jnp.sum(task.inputs**2, axis=1) / task.inputs.shape[0]
        time_constant = rule.time_constant.astype(initial.dtype)
        solution = cls(task, initial, kappa / (time_constant * jnp.asarray(_LOG_TWO, initial.dtype)))
        return enforce(solution, cls.__name__, assumptions) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: orthogonal inputs, no weight decay."""
        if not isinstance(task, EntropyTask):
            raise ValueError(f"`task` must be an EntropyTask; got {type(task).__name__}.")
        if not isinstance(model, KnowledgeLayer):
            raise ValueError(f"`model` must be a KnowledgeLayer; got {type(model).__name__}.")
        if model.weights.shape[1] != task.inputs.shape[1]:
            raise ValueError(
                f"`model` must have {task.inputs.shape[1]} inputs, as the task has; got {model.weights.shape[1]}."
            )
        products = task.inputs @ task.inputs.T
        off = products - jnp.diag(jnp.diagonal(products))
        orthogonal = Assumption("orthogonal inputs", relative_norm(off, products), tolerance_for(products))
        return [orthogonal, no_weight_decay(check_flow(rule, cls.__name__))]

    def reduce(self, model: KnowledgeLayer) -> KnowledgeState:
        """The logits of an actual layer, and their entropy."""
        return _state(jax.vmap(model)(self.task.inputs))

    def state(self, t: Float[Array, ""]) -> KnowledgeState:
        """Logits and entropy at time `t`."""
        t = t.astype(self.initial.dtype)
        grown = jax.vmap(jax.vmap(_grown, (0, None)), (0, 0))(jnp.abs(self.initial), self.rates * t)
        # Inputs of zero norm move nothing in infinite time either.
        moved = jnp.isnan(grown) & (self.rates[:, None] == 0)
        return _state(jnp.sign(self.initial) * jnp.where(moved, jnp.abs(self.initial), grown))

    def limit(self) -> KnowledgeState:
        """Infinite logits, wherever they were not zero, and whole bits of entropy for those that were."""
        stays = (self.initial == 0) | (self.rates[:, None] == 0)
        return _state(jnp.where(stays, self.initial, jnp.sign(self.initial) * jnp.inf))

    def vector_field(self, t: Float[Array, ""], state: KnowledgeState) -> KnowledgeState:
        """The velocity of the logits, and of their entropy."""
        del t
        log_two = jnp.asarray(_LOG_TWO, state.logits.dtype)
        velocity = -self.rates[:, None] * log_two * _entropy_slope(state.logits)
        return jax.jvp(_state, (state.logits,), (velocity,))[1]


def _state(logits: Float[Array, "examples units"]) -> KnowledgeState:
    return KnowledgeState(logits, _mean_entropy(logits))


def _mean_entropy(logits: Float[Array, "examples units"]) -> Float[Array, ""]:
    return jnp.mean(jnp.sum(decision_entropy(logits), axis=1))


def _entropy_slope(z: Array) -> Array:
    return -z * jax.nn.sigmoid(z) * jax.nn.sigmoid(-z) / jnp.asarray(_LOG_TWO, z.dtype)


def _grown(start: Float[Array, ""], drive: Float[Array, ""]) -> Float[Array, ""]:
    r"""$z$ with $2[\ln z + \mathrm{Chi}(z)]$ larger by `drive` than at `start`, for `start` not below zero."""
    # Beyond, derivatives overflow; hardly any time that is a number leads there.
    largest = math.log(float(jnp.finfo(start.dtype).max)) - 1
    moves = (start > 0) & (start < largest)
    safe = jnp.where(moves, start, 1.0)
    finite = jnp.minimum(drive, jnp.finfo(drive.dtype).max)
    before = cosh_integral(safe)

    def gained(log: Array) -> Array:
        return 4 * log + 2 * (cosh_integral(safe * jnp.exp(log)) - before)

    # Logarithms grow at most at the rate of a small logit; a little more, so that rounding leaves the root inside.
    most = jnp.minimum(1.001 * finite / 4, jnp.log(largest / safe))
    log = monotone_inverse(gained, finite, jnp.zeros_like(most), most)
    return jnp.where(moves, jnp.where(drive == jnp.inf, jnp.inf, safe * jnp.exp(log)), start)
