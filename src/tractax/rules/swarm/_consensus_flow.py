"""Consensus-based optimisation: particles drift to where the loss is low, without gradients."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractFlowRule, Objective, check_positive
from ...special import safe_sqrt
from ..noise._brownian_motion import brownian_motion


class ConsensusFlow(AbstractFlowRule[PyTree]):
    r"""$dX_i = -\lambda\,(X_i - x_\alpha)\,dt + \sigma\,\lVert X_i - x_\alpha\rVert\,dB_i$, in the sense of Ito.

    The consensus point $x_\alpha = \sum_iX_ie^{-\alpha L(X_i)}/\sum_ie^{-\alpha L(X_i)}$ leans to the particles of low
    loss. The loss is evaluated, never differentiated.

    The model is a population: a network in which every trainable array has a leading axis of particles, as `jax.vmap`
    over its constructor makes it. With noise, `tx.train` needs a `key` and Euler's method, since the noise depends on
    the state: `solver=diffrax.Euler(), dt0=0.01, stepsize_controller=diffrax.ConstantStepSize()`.

    **Arguments:**

    - `drift`: $\lambda > 0$.
    - `inverse_temperature`: $\alpha \ge 0$; zero for the plain mean of all particles.
    - `noise_scale`: $\sigma \ge 0$; `None` for none, and then an ordinary differential equation.

    **Raises:**

    `ValueError` for a drift that is not positive, or a negative temperature or noise.
    """

    drift: Float[Array, ""]
    inverse_temperature: Float[Array, ""]
    noise_scale: Float[Array, ""] | None

    def __init__(
        self, drift: ArrayLike = 1.0, inverse_temperature: ArrayLike = 1.0, noise_scale: ArrayLike | None = None
    ):
        self.drift = check_positive("drift", drift, scalar=True)
        self.inverse_temperature = check_positive("inverse_temperature", inverse_temperature, zero=True, scalar=True)
        self.noise_scale = (
            None if noise_scale is None else check_positive("noise_scale", noise_scale, zero=True, scalar=True)
        )

    def init(self, params: PyTree) -> PyTree:
        """The state is the parameters of all particles."""
        sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(params)}
        if len(sizes) != 1 or () in sizes:
            raise ValueError(
                f"`model` must have one leading axis of particles in every trainable array; got leading sizes {sizes}."
            )
        return params

    def params(self, state: PyTree) -> PyTree:
        """The state is the parameters of all particles."""
        return state

    def consensus(self, params: PyTree, objective: Objective) -> PyTree:
        """$x_\\alpha$, the parameters on which the particles agree."""
        return consensus_of(params, jax.vmap(objective.loss)(params), self.inverse_temperature)

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The drift of all particles to the consensus point."""
        del t
        return jax.tree.map(lambda x: -self.drift.astype(x.dtype) * x, self._offsets(params, objective))

    def terms(self, state: PyTree, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.ODETerm | diffrax.MultiTerm:
        """The drift, and with noise a term driven by Brownian motion."""
        drift = diffrax.ODETerm(self.vector_field)
        if self.noise_scale is None:
            return drift
        shake = eqx.Partial(self._shake, self.noise_scale)
        return diffrax.MultiTerm(drift, diffrax.ControlTerm(shake, brownian_motion(state, t0, t1, key)))

    def _offsets(self, params: PyTree, objective: Objective) -> PyTree:
        return jax.tree.map(lambda x, y: x - y[None, ...], params, self.consensus(params, objective))

    def _shake(
        self, noise_scale: Float[Array, ""], t: Any, params: PyTree, objective: Objective
    ) -> lx.DiagonalLinearOperator:
        """The distance of each particle from the consensus, for every number of it."""
        del t
        offsets = self._offsets(params, objective)
        squares = [jnp.sum(x**2, axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(offsets)]
        distance = safe_sqrt(sum(squares[1:], squares[0]))

        def scale(x: Array) -> Array:
            size = noise_scale.astype(x.dtype) * distance.astype(x.dtype)
            return jnp.broadcast_to(size.reshape(-1, *[1] * (x.ndim - 1)), x.shape)

        return lx.DiagonalLinearOperator(jax.tree.map(scale, params))


def consensus_of(params: PyTree, losses: Float[Array, " particles"], inverse_temperature: Float[Array, ""]) -> PyTree:
    """The mean of all particles, weighted by how low their losses are."""
    weights = jax.nn.softmax(-inverse_temperature.astype(losses.dtype) * losses)
    return jax.tree.map(lambda x: jnp.tensordot(weights.astype(x.dtype), x, 1), params)
