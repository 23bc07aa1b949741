r"""Logistic regression with huge steps is the perceptron algorithm.

Set-up. A linear classifier on $n$ examples with labels $y_i = \pm1$, $z_i = y_ix_i$, logistic loss
$\tfrac1n\sum_i\ln(1 + e^{-z_i\cdot w})$, gradient descent with learning rate $\gamma$ from $w = 0$. In units of $\gamma$,
$u = w/\gamma$ obeys

$$u \leftarrow u + \tfrac1n\sum_iz_i\,\sigma(-\gamma\,z_i\cdot u) \;\xrightarrow{\gamma\to\infty}\;
u + \tfrac1n\sum_iz_i\,\mathbb 1[z_i\cdot u < 0],$$

the batch perceptron, where examples with margin zero (all of them in the first step) count half. Time is counted in
steps. A single step differs by no more than `large_step_bound`; errors may add up, and a margin near zero may turn them
into a different path altogether. On separable data the batch perceptron stops after at most `perceptron_bound` steps.

Source: Tyurin 2024, arXiv 2412.08424, of which the correspondence is taken and no rate; the
bound on the number of steps is Novikoff's argument (1962) for batches.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import check_matrix, check_positive
from ._max_margin import check_classification, max_margin


def perceptron_bound(task: PyTree) -> Float[Array, ""]:
    r"""The number of steps after which the batch perceptron, started from zero, has no example wrong.

    $n\,(R/\gamma_*)^2$ with $R = \max_i\lVert x_i\rVert$ and $\gamma_*$ the largest margin; infinite where the data are
    not separable. Each step has at least one example wrong: it adds at least $\gamma_*/n$ to the overlap of $u$ with the
    direction of largest margin, and in all no more than $R^2$ per full mistake to $\lVert u\rVert^2$.

    **Arguments:**

    - `task`: a `ClassificationTask` of two examples or more.

    **Raises:**

    `ValueError` for another kind of task, or a single example (which takes one step).
    """
    inputs = check_classification(task).inputs
    examples = inputs.shape[0]
    if examples < 2:
        raise ValueError("`task` must have at least 2 examples; got 1, which is right after one step.")
    radius, margin = jnp.max(jnp.linalg.norm(inputs, axis=1)), max_margin(task).margin
    return jnp.where(margin > 0, examples * (radius / jnp.where(margin > 0, margin, 1.0)) ** 2, jnp.inf)


def large_step_bound(task: PyTree, weights: ArrayLike, learning_rate: ArrayLike) -> Float[Array, ""]:
    r"""How far one step of logistic regression, divided by its learning rate, can be from one of the perceptron.

    $\tfrac1n\sum_i\lVert x_i\rVert\,\sigma(-\gamma\lvert z_i\cdot u\rvert)
    \le \max_i\lVert x_i\rVert\;e^{-\gamma\min_i\lvert z_i\cdot u\rvert}$.

    **Arguments:**

    - `task`: a `ClassificationTask`.
    - `weights`: $u = w/\gamma$, from which both make their step, shape `(in,)`.
    - `learning_rate`: $\gamma$.
    """
    inputs = check_classification(task).inputs
    weights = check_matrix("weights", weights, inputs.shape[1:]).astype(inputs.dtype)
    rate = check_positive("learning_rate", learning_rate).astype(inputs.dtype)
    norms, margins = jnp.linalg.norm(inputs, axis=1), jnp.abs(inputs @ weights)
    # At a margin of zero both count the example half.
    return jnp.mean(jnp.where(margins == 0, 0.0, norms * jax.nn.sigmoid(-rate * margins)))
