r"""Orthogonal gradients: training that turns the weights without stretching them.

The gradient $g$ of every parameter array $w$ loses its component along $w$,

$$g_\perp = g - \frac{w\cdot g}{w\cdot w}\,w.$$

For a network that is homogeneous in its weights, growing all of them is what lowers a cross-entropy once all examples
are fitted, and it changes no answer. Without that component the flow $\tau\dot w = -g_\perp$ conserves
$\lVert w\rVert$ of every array exactly, and a step of learning rate $\eta$ makes
$\lVert w\rVert^2 \to \lVert w\rVert^2 + \eta^2\lVert g_\perp\rVert^2$. The variant with `rescale` gives $g_\perp$ the
length of $g$, which changes the speed of each array only.

On regression with white inputs, $L = \tfrac12\lVert w - w_*\rVert^2$, the angle $\theta$ between $w$ and $w_*$ obeys
$\tau\lVert w\rVert\dot\theta = -\lVert w_*\rVert\sin\theta$, so that $\tan\tfrac\theta2$ decays with the rate
$\lVert w_*\rVert/(\tau\lVert w\rVert)$.

Source: Prieto, Barsbey, Mediano and Birdal 2025, arXiv 2501.04697, whose code trains the variant with `rescale`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractParameterFlow, AbstractTask, Objective, check_positive


def orthogonal_gradient(gradient: PyTree, params: PyTree, *, rescale: bool = False) -> PyTree:
    r"""$g_\perp = g - (w\cdot g/w\cdot w)\,w$ of every array.

    **Arguments:**

    - `gradient`: $g$, a PyTree of arrays.
    - `params`: $w$, of the same structure. An array that is zero leaves its gradient as it is; that of an array with a
      single entry has no orthogonal part.
    - `rescale`: give $g_\perp$ the length of $g$. Where nothing but rounding is left of it, it is zero instead.
    """
    return jax.tree.map(lambda g, w: _orthogonal(g, w, rescale), gradient, params)


def perp_grad(*, rescale: bool = False) -> optax.GradientTransformation:
    r"""Orthogonal gradients as an optax transformation, to chain before an optimiser.

    ```python
    rule = tx.GradientDescent(0.1, lambda rate: optax.chain(perp_grad(), optax.sgd(rate)))
    ```

    With plain descent $\lVert w\rVert^2$ of every array grows by $\eta^2\lVert g_\perp\rVert^2$ in a step. An optimiser
    with momentum or scales of its own turns the update away from $g_\perp$.

    **Arguments:**

    - `rescale`: give $g_\perp$ the length of $g$.
    """

    def init(params: PyTree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(updates: PyTree, state: optax.EmptyState, params: PyTree | None = None) -> tuple[PyTree, optax.EmptyState]:
        if params is None:
            raise ValueError("`params` must be passed to the update of perp_grad; got None.")
        return orthogonal_gradient(updates, params, rescale=rescale), state

    return optax.GradientTransformation(init, update)


class OrthogonalFlow(AbstractParameterFlow):
    r"""$\tau\,\dot w = -g_\perp$ for every parameter array: gradient flow on a product of spheres.

    It has no weight decay, whose gradient lies along $w$. Arrays that are zero stay so, on a sphere of radius zero.

    **Arguments:**

    - `time_constant`: $\tau > 0$, the unit in which time is measured.
    - `rescale`: give $g_\perp$ the length of $g$. The velocity does then not vanish at a minimum on the sphere, where it
      is not continuous.

    **Raises:**

    `ValueError` for a time constant that is not positive.
    """

    time_constant: Float[Array, ""]
    rescale: bool = eqx.field(static=True)

    def __init__(self, time_constant: ArrayLike = 1.0, *, rescale: bool = False):
        self.time_constant = check_positive("time_constant", time_constant, scalar=True)
        self.rescale = rescale

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        gradient = orthogonal_gradient(objective.gradient(params), params, rescale=self.rescale)

        def velocity(w: Array, g: Array) -> Array:
            return jnp.where(jnp.any(w != 0), -g / self.time_constant.astype(g.dtype), 0.0)

        return jax.tree.map(velocity, params, gradient)


def array_norms(model: PyTree) -> Float[Array, " arrays"]:
    r"""$\lVert w\rVert$ of every trainable array, in the order of `jax.tree.leaves`: what `OrthogonalFlow` conserves.

    **Arguments:**

    - `model`: any Equinox module.

    **Raises:**

    `ValueError` if it has no trainable arrays.
    """
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    if not leaves:
        raise ValueError("`model` must have trainable arrays; it has none.")
    return jnp.stack([jnp.linalg.norm(jnp.ravel(w)) for w in leaves])


def radial_alignment(model: PyTree, task: AbstractTask) -> Float[Array, ""]:
    r"""$\cos(-\nabla L, w)$ over all trainable arrays: whether gradient descent only stretches the weights.

    **Arguments:**

    - `model`: any Equinox module.
    - `task`: where the loss comes from.

    **Returns:**

    One number: 1 where descent moves along $w$; 0 where the gradient or the weights vanish.
    """
    w = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    g = jax.tree.leaves(eqx.filter_grad(task.loss)(model))
    inner = -sum(jnp.vdot(w_i, g_i) for w_i, g_i in zip(w, g, strict=True))
    size = optax.tree.norm(w) * optax.tree.norm(g)
    return jnp.where(size > 0, inner / jnp.where(size > 0, size, 1.0), 0.0)


def _orthogonal(g: Array, w: Array, rescale: bool) -> Array:
    size = jnp.max(jnp.abs(w))
    # In units of the largest entry, whose square may underflow.
    unit = w / jnp.where(size == 0, 1.0, size)
    square = jnp.sum(unit**2)
    perpendicular = g - jnp.sum(unit * g) / jnp.where(square == 0, 1.0, square) * unit
    if not rescale:
        return perpendicular
    whole, left = (jnp.sqrt(_safe(jnp.sum(x**2))) for x in (g, perpendicular))
    rounding = 8 * jnp.finfo(g.dtype).eps * whole
    return jnp.where(left > rounding, perpendicular * (whole / jnp.where(left > rounding, left, 1.0)), 0.0)


def _safe(x: Array) -> Array:
    """Away from zero, where a root has no derivative."""
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)
