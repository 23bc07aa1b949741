r"""Rectifier networks of rank one on mirrored, isotropic data: all weights in closed form.

Set-up. As in `SymmetricReLU`, with one output, inputs of covariance $\Sigma_{xx} = \sigma^2I$, and weights $W_1 =
qr^\top$, $W_2 = q^\top$ with $\lVert r\rVert = 1$ and as much of $\lVert q\rVert^2$ in positive as in negative entries.
Weights from small random ones have this form after the first alignment.

Theory. With $\hat q = q/\lVert q\rVert$ and the solution $(w, a)$ of a balanced unit
(`tractax.special.balanced_bernoulli`) that starts at $w = \sqrt\kappa\lVert q\rVert r$ and learns
$\Sigma_{yx}^\top/\sigma^2$, at the time $\kappa\sigma^2t/\tau$,

$$W_1 = \hat qw^\top/\sqrt\kappa,\qquad W_2 = \hat q^\top a/\sqrt\kappa,\qquad f(x) = a\,w\cdot x.$$

Source: Zhang, Saxe and Latham 2024, arXiv 2406.12615.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, AbstractSolution, Assumption, Kind, enforce, relative_norm, tolerance_for
from ..deep_linear import RegressionTask
from ..rules import GradientFlow, check_flow, no_weight_decay
from ..special import balanced_bernoulli
from ._base import Layers, check_data, check_network
from ._network import TwoLayerNetwork
from ._symmetric_data import mirrored_data, off_the_kinks, opposite_units, second_moments
from ._symmetric_relu import linear_gain


class RankOneReLU(AbstractSolution[Layers]):
    """Training of a (leaky) rectifier network of rank one on mirrored data of isotropic inputs, in closed form.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`).

    **Attributes:**

    - `start`: $\\sqrt\\kappa\\lVert q\\rVert r$, shape `(in,)`.
    - `target`: $\\Sigma_{yx}^\\top/\\sigma^2$, shape `(in,)`.
    - `rate`: $\\kappa\\sigma^2/\\tau$.
    - `shares`: $\\hat q/\\sqrt\\kappa$, shape `(hidden,)`.
    - `gain`: $\\kappa$.
    - `task`, `rule`: the case.
    """

    start: Float[Array, " in"]
    target: Float[Array, " in"]
    rate: Float[Array, ""]
    shares: Float[Array, " hidden"]
    gain: Float[Array, ""]
    task: RegressionTask
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "RankOneReLU":
        """The solution for a network, having checked its form and the symmetry of the data.

        **Raises:**

        `ValueError` for another kind of network, task or rule, or if an assumption is violated.
        """
        solution = cls._build(model, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        solution = cls._build(model, task, rule)
        _, covariance, _ = second_moments(task)
        isotropic = jnp.mean(jnp.diagonal(covariance)) * jnp.eye(covariance.shape[0], dtype=covariance.dtype)
        tolerance = tolerance_for(covariance)
        off = model.first - solution.state(jnp.zeros((), covariance.dtype)).first
        size = jnp.linalg.norm(model.second)
        unbalanced = jnp.abs(jnp.linalg.norm(model.first) - size) / jnp.where(size == 0, 1.0, size)
        return (
            mirrored_data(task),
            Assumption("isotropic inputs, Σxx ∝ I", relative_norm(covariance - isotropic, isotropic), tolerance),
            Assumption("weights of rank one, W1 = q rᵀ and W2 = qᵀ", relative_norm(off, model.first), tolerance),
            Assumption("balanced weights, ‖r‖ = 1", unbalanced, tolerance),
            opposite_units(model),
            off_the_kinks(model, task),
            no_weight_decay(solution.rule),
        )

    @classmethod
    def _build(cls, model: Any, task: Any, rule: AbstractRule | None) -> "RankOneReLU":
        model, rule = check_network(model, cls.__name__), check_flow(rule, cls.__name__)
        if model.sizes[2] != 1:
            raise ValueError(f"`model` must have one output for {cls.__name__}; got {model.sizes[2]}.")
        task = check_data(model, task)
        cross, covariance, _ = second_moments(task)
        variance, gain, q = jnp.mean(jnp.diagonal(covariance)), linear_gain(model), model.second[0]
        size = jnp.linalg.norm(q)
        unit = q / jnp.where(size == 0, 1.0, size)
        rate = gain * variance / rule.time_constant.astype(gain.dtype)
        start, shares = jnp.sqrt(gain) * unit @ model.first, unit / jnp.sqrt(gain)
        return cls(start, cross[0] / variance, rate, shares, gain, task, rule)

    def state(self, t: Float[Array, ""]) -> Layers:
        """The weights at time `t`."""
        w, a = balanced_bernoulli(self.rate * t.astype(self.rate.dtype), self.start, self.target)
        return Layers(self.shares[:, None] * w[None, :], (self.shares * a)[None, :])

    def limit(self) -> Layers:
        """The weights as t → ∞, where the map is the best linear one."""
        return self.state(jnp.asarray(jnp.inf, self.rate.dtype))

    def vector_field(self, t: Any, state: Layers) -> Layers:
        """The flow of a linear network of these weights, slowed down."""
        del t
        cross, covariance, _ = second_moments(self.task)
        pull = self.gain * (cross - self.gain * state.second @ state.first @ covariance)
        tau = self.rule.time_constant.astype(self.gain.dtype)
        velocity = Layers(state.second.T @ pull, pull @ state.first.T)
        return jax.tree.map(lambda x: x / tau, velocity)

    def reduce(self, model: TwoLayerNetwork) -> Layers:
        """The weights of a network."""
        return Layers(model.first, model.second)

    def product(self, t: ArrayLike) -> Float[Array, "1 in"]:
        """The map from inputs to the output at one time: $f(x)$ is this matrix times $x$."""
        state = self.evaluate(t)
        return self.gain * state.second @ state.first
