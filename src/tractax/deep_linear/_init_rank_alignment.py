r"""Low-rank initial weights learn more richly: how far the tangent kernel turns in training, from the start alone.

Set-up. Two layers and one output, $f(x) = w_2^\top W_1x$, whitened inputs, target $\beta \in \mathbb R^d$, loss
$\tfrac12\lVert\beta - W_1^\top w_2\rVert^2$, gradient flow from small weights of size $\sigma$. As a matrix on inputs the
tangent kernel is $K = W_1^\top W_1 + \lVert w_2\rVert^2 I$. Whatever the start, training ends near
$K_\infty \propto \hat\beta\hat\beta^\top + I$, so the alignment of initial and final kernel is

$$A = \frac{\langle K_0, K_\infty\rangle}{\lVert K_0\rVert\,\lVert K_\infty\rVert} =
\frac{\hat\beta^\top K_0\hat\beta + \operatorname{tr}K_0}{\lVert K_0\rVert_F\sqrt{d + 3}} + O(\sigma^2).$$

Averaged over the directions of $\beta$ it depends on the participation ratio of $K_0$ only: small rank, small alignment,
much feature learning. The exception is a start that is aligned already, $W_1 = \sigma v\hat\beta^\top$, $w_2 = \sigma v$,
$\lVert v\rVert = 1$: there $A = 1$ at all times, exactly, although the rank is one.

Source: Liu et al. 2023, arXiv 2310.08513 (the formulas in this form are derived anew).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import AbstractRule, Assumption, check_matrix, check_psd, enforce, require
from ._base import check_flow, check_layers, no_weight_decay, whitened
from ._network import DeepLinear
from ._task import LinearTask


def input_kernel(model: DeepLinear) -> Float[Array, "in in"]:
    r"""$K = W_1^\top W_1 + \lVert w_2\rVert^2 I$: the tangent kernel of two inputs is $x^\top K x'$.

    **Arguments:**

    - `model`: a network with two layers and one output.

    **Raises:**

    `ValueError` for other networks.
    """
    if not isinstance(model, DeepLinear):
        raise ValueError(f"`model` must be a DeepLinear network; got {type(model).__name__}.")
    if model.depth != 2 or model.sizes[-1] != 1:
        raise ValueError(f"`model` must have two layers and one output; got layer sizes {model.sizes}, input first.")
    w1, w2 = model.weights
    return w1.T @ w1 + jnp.sum(w2**2) * jnp.eye(w1.shape[1], dtype=w1.dtype)


def participation_ratio(kernel: Float[Array, "in in"]) -> Float[Array, ""]:
    r"""$(\operatorname{tr}K)^2/\operatorname{tr}K^2$, the effective rank: from 1 to the size of the kernel."""
    kernel = _check_kernel(kernel)
    return (jnp.trace(kernel) / jnp.linalg.norm(kernel)) ** 2


def target_alignment(kernel: Float[Array, "in in"], target: Float[Array, " in"]) -> Float[Array, ""]:
    r"""The cosine of a kernel with $\hat\beta\hat\beta^\top + I$, the kernel in which training from small weights ends.

    **Arguments:**

    - `kernel`: $K$, shape `(in, in)`.
    - `target`: $\beta$, of any length but zero.
    """
    kernel = _check_kernel(kernel)
    d = kernel.shape[0]
    target = check_matrix("target", target, (d,)).astype(kernel.dtype)
    power = jnp.sum(target**2)
    target = require(target, power > 0, "`target` must not vanish.")
    along = target @ kernel @ target / power
    return (along + jnp.trace(kernel)) / (jnp.linalg.norm(kernel) * (d + 3) ** 0.5)


def expected_alignment(kernel: Float[Array, "in in"]) -> Float[Array, ""]:
    r"""`target_alignment` averaged over targets of random direction, $\frac{d + 1}{d\sqrt{d + 3}}\sqrt{PR}$.

    It grows with the participation ratio $PR$ of the kernel and knows nothing else of it.
    """
    d = kernel.shape[0]
    return (d + 1) / (d * (d + 3) ** 0.5) * jnp.sqrt(participation_ratio(kernel))


def final_alignment(
    model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None, *, check: bool = True
) -> Float[Array, ""]:
    r"""The alignment that the tangent kernel will have, at the end of training, with what it is now.

    It is the limit of small weights; the error is $O(\sigma^2)$ if all weights are scaled by $\sigma$.

    **Arguments:**

    - `model`: a network with two layers and one output, as it is initialised.
    - `task`: with whitened inputs.
    - `rule`: gradient flow (the default); time plays no role.

    **Raises:**

    `ValueError` if the network does not fit the task, or violates an assumption of `alignment_assumptions`.
    """
    check_layers(model, task, depth=2)
    alignment = target_alignment(input_kernel(model), task.cross_covariance[0])
    return enforce(alignment, "final_alignment", alignment_assumptions(model, task, rule)) if check else alignment


def alignment_assumptions(
    model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None
) -> tuple[Assumption, ...]:
    """How far a network and a task are from what `final_alignment` takes for granted."""
    rule = check_flow(rule, "final_alignment")
    w1, w2 = check_layers(model, task, depth=2).weights
    beta = task.optimum[0]
    length = jnp.linalg.norm(beta)
    size = jnp.sum(w1**2) + jnp.sum(w2**2)
    # What grows first is w2 + W1 β̂; without it the network sits at, or falls into, the saddle at zero.
    growing = jnp.linalg.norm(w2[0] + w1 @ (beta / length)) / jnp.sqrt(size)
    return (
        whitened(task),
        no_weight_decay(rule),
        Assumption("small initial weights, ‖W1‖² + ‖w2‖² ≪ ‖β‖", size / length, 0.1),
        Assumption("w2 + W1 β̂ ≠ 0, so that the network leaves the saddle", 1 - jnp.minimum(growing, 1.0), 1 - 1e-6),
    )


def _check_kernel(kernel: Float[Array, "in in"]) -> Float[Array, "in in"]:
    kernel = check_psd("kernel", kernel)
    return require(kernel, jnp.trace(kernel) > 0, "`kernel` must not vanish.")
