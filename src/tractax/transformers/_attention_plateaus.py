r"""Where linear attention with separate keys and queries stops on its way: regression on principal components.

Set-up. As in `SeparateAttentionFlow`, with isotropic tasks, $\Omega = \omega I$, and queries like the examples,
$\Lambda_q = \Lambda = \sum_i\lambda_ie_ie_i^\top$. The loss has its ½.

Theory. The effective maps at which the flow stops are $A_S = \sum_{i\in S}\gamma_i^{-1}e_ie_i^\top$ for any set $S$ of at
most $HR$ principal components, with

$$\gamma_i = \Big(1 + \frac1N\Big)\lambda_i + \frac1N\Big(\operatorname{tr}\Lambda + \frac{\sigma^2}\omega\Big).$$

From small generic weights the flow passes those of the $m$ largest components, in this order. In the limit of long
prompts $A_S$ is principal component regression: the prediction is $w^\top\Pi_Sx_q$.

Source: Zhang, Singh, Latham and Saxe 2025, arXiv 2501.16265.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import Assumption, check_count, relative_norm, require, tolerance_for
from ._in_context_regression import InContextRegression


def plateau_map(task: PyTree, components: Sequence[int]) -> Float[Array, "inputs inputs"]:
    r"""$A_S$, the effective map that does regression on some principal components only.

    **Arguments:**

    - `task`: an `InContextRegression` with isotropic tasks and queries like the examples.
    - `components`: $S$, different indices of principal components; 0 has the largest variance.

    **Raises:**

    `ValueError` for another task or for indices that are not those of components.
    """
    gains, vectors = principal_gains(task)
    chosen = [check_count("components", i, least=0) for i in components]
    if len(set(chosen)) != len(chosen) or max(chosen, default=0) >= gains.shape[0]:
        raise ValueError(
            f"`components` must be different whole numbers from 0 to {gains.shape[0] - 1}; got {components}."
        )
    kept = jnp.zeros_like(gains).at[jnp.asarray(chosen, int)].set(1.0)
    return (vectors * (kept * gains)[None, :]) @ vectors.T


def plateau_losses(task: PyTree, rank: int | None = None) -> Float[Array, " plateaus"]:
    r"""The loss on each plateau: that of the $m = 0, 1, \dots$ largest principal components.

    $L_m = \tfrac12\big(\omega\operatorname{tr}\Lambda - \omega\sum_{i\le m}\lambda_i^2/\gamma_i\big)$; papers without
    the ½ have twice these.

    **Arguments:**

    - `task`: an `InContextRegression` with isotropic tasks and queries like the examples.
    - `rank`: $HR$, heads times rank, the number of components that can be learned; `None` for all of them.

    **Raises:**

    `ValueError` for another task or a negative rank.
    """
    gains, vectors = principal_gains(task)
    drives = jnp.sum(vectors * (task.drive @ vectors), axis=0)
    falls = jnp.concatenate([jnp.zeros(1, gains.dtype), jnp.cumsum(drives * gains)])
    plateaus = gains.shape[0] if rank is None else min(check_count("rank", rank, least=0), gains.shape[0])
    return (jnp.sum(task.task_covariance * task.query_covariance) - falls[: plateaus + 1]) / 2


def principal_gains(task: PyTree) -> tuple[Float[Array, " inputs"], Float[Array, "inputs inputs"]]:
    r"""$1/\gamma_i$ and the principal components, as columns, by falling variance."""
    if not isinstance(task, InContextRegression):
        raise ValueError(f"`task` must be an InContextRegression; got {type(task).__name__}.")
    vectors = jnp.linalg.eigh(task.covariance)[1][:, ::-1]
    common = one_basis(task)
    message = f"`task` must have {common.name}, to have plateaus."
    vectors = require(vectors, common.holds, message)
    return jnp.sum(vectors * (task.optimum @ vectors), axis=0), vectors


def one_basis(task: InContextRegression) -> Assumption:
    """Tasks and queries single out no direction that the examples do not."""
    identity = jnp.eye(task.inputs, dtype=task.covariance.dtype)
    power = jnp.trace(task.task_covariance) / task.inputs
    apart = jnp.maximum(
        relative_norm(task.task_covariance - power * identity, task.task_covariance),
        relative_norm(task.query_covariance - task.covariance, task.covariance),
    )
    return Assumption("isotropic tasks, Ω ∝ I, and queries like the examples, Λ_q = Λ", apart, tolerance_for(apart))
