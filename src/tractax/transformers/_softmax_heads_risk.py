r"""The exact risk of softmax heads at finite sizes.

Set-up. Isotropic prompts as in `SoftmaxHeadsTask`, in units of $\lambda$ and $P$. Of the inputs only their components
along the query matter to the attention: given $r = \lVert x_q\rVert\sim\chi_d$ and these components, $a_l\sim\mathcal
N(0, 1)$, the weights of the labels are $p = \sum_h\mu_h\,\mathrm{softmax}(\tilde\omega_hra)$, and the average over the
rest is known:

$$\frac RP = \mathbb E\Big[\frac{(p\cdot a - r)^2}d + \Big(\frac{d - 1}d + \frac{\sigma^2}P\Big)\lVert p\rVert^2\Big].$$

`sampled_heads_risk` draws $r$ and $a$; for $L = 2$, `two_example_risk` integrates.

Source: derived for the model of He, Pan, Chen and Yang 2025, arXiv 2503.12734.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import check_count, check_key, standard_normal
from ._softmax_heads import SoftmaxHeads
from ._softmax_heads_task import SoftmaxHeadsTask, check_heads

# Draws whose attention is held in memory at a time.
_CHUNK = 1024


def sampled_heads_risk(
    model: PyTree, task: PyTree, *, key: PRNGKeyArray, samples: int = 100_000
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The risk of softmax heads at finite sizes, averaged over all but what the attention depends on.

    With one key the estimate is a smooth function of the heads.

    **Arguments:**

    - `model`: `SoftmaxHeads`.
    - `task`: a `SoftmaxHeadsTask`, isotropic.
    - `key`: for the draws.
    - `samples`: how many, at least two.

    **Returns:**

    `(risk, standard error)`; the risk has no ½, and the label of the query no noise.

    **Raises:**

    `ValueError` for another model or task, or too few samples.
    """
    check_key(key)
    check_heads(model, task)
    samples = check_count("samples", samples, least=2)
    size, dtype = task.data.inputs, model.mu.dtype
    omega, noise = _scaled(model, task)

    def chunk(key: PRNGKeyArray) -> Float[Array, " draws"]:
        length_key, key = jax.random.split(key)
        r = jnp.linalg.norm(standard_normal(length_key, (_CHUNK, size), dtype), axis=1)
        a = standard_normal(key, (_CHUNK, task.data.length), dtype)
        scores = (r[:, None] * omega[None, :])[:, :, None] * a[:, None, :]
        p = jnp.einsum("h,nhl->nl", model.mu, jax.nn.softmax(scores, axis=2))
        answer = (jnp.sum(p * a, axis=1) - r) ** 2
        return answer / size + (1 - 1 / size + noise) * jnp.sum(p**2, axis=1)

    draws = jax.lax.map(chunk, jax.random.split(key, -(-samples // _CHUNK)))
    draws, power = jnp.ravel(draws)[:samples], task.power.astype(dtype)
    return power * jnp.mean(draws), power * jnp.std(draws, ddof=1) / samples**0.5


def two_example_risk(model: PyTree, task: PyTree) -> Float[Array, ""]:
    r"""The risk of softmax heads on prompts of two examples, by quadrature over $r$ and $u = (a_1 - a_2)/\sqrt2$.

    Both integrals are done by the trapezoidal rule in the logarithm, which converges exponentially and resolves the
    sharp turn at $u = 0$ of heads with a large $\omega$: accurate to rounding.

    **Arguments:**

    - `model`: `SoftmaxHeads`.
    - `task`: a `SoftmaxHeadsTask` of length two.

    **Returns:**

    The risk, without ½; the label of the query has no noise.

    **Raises:**

    `ValueError` for another model or task, or another length.
    """
    check_heads(model, task)
    if task.data.length != 2:
        raise ValueError(f"`task` must have prompts of two examples; got {task.data.length}.")
    size, dtype = task.data.inputs, model.mu.dtype
    omega, noise = _scaled(model, task)
    r, of_r, u, of_u = (jnp.asarray(x, dtype) for x in _nodes(size))
    turn = omega[:, None, None] * (r[:, None] * u[None, :])[None] / 2**0.5
    difference, total = jnp.einsum("h,hru->ru", model.mu, jnp.tanh(turn)), jnp.sum(model.mu)
    answer = (difference * u[None, :] / 2**0.5 - r[:, None]) ** 2 + total**2 / 2
    scatter = (difference**2 + total**2) / 2
    return task.power.astype(dtype) * (of_r @ (answer / size + (1 - 1 / size + noise) * scatter) @ of_u)


def _nodes(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights for the norm of `size` normal variables, and for the modulus of one."""
    # Far enough out for the weights to vanish in float64: around sqrt(size) on one side, from 1e-17 on the other.
    spread = (40 / size) ** 0.5
    x = np.linspace(-(40 / size + spread), spread, 400)
    of_r = np.exp(size * (x - np.expm1(2 * x) / 2))
    u = np.exp(np.linspace(-40.0, 2.6, 300))
    of_u = u * np.exp(-(u**2) / 2)
    return size**0.5 * np.exp(x), of_r / of_r.sum(), u, of_u / of_u.sum()


def _scaled(model: SoftmaxHeads, task: SoftmaxHeadsTask) -> tuple[Float[Array, " heads"], Float[Array, ""]]:
    """The heads and the noise in units of the inputs' variance and of the power."""
    noise = task.data.noise_variance / task.power
    return task.variance.astype(model.mu.dtype) * model.omega, noise.astype(model.mu.dtype)
