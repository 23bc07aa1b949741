"""Linear regression in context: every prompt is a regression problem of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_positive, check_psd, require, standard_normal
from ._attention_moments import mean_squared_error
from ._context_length import check_length
from ._linear_attention import AbstractLinearAttention


class InContextRegression(AbstractSampledTask):
    r"""Half the mean squared error of the answer to a query, after a prompt of labelled examples.

    In every prompt there is a new task $w\sim\mathcal N(0, \Omega)$, $N$ inputs $x_i\sim\mathcal N(0, \Lambda)$ with
    labels $y_i = w\cdot x_i + \sigma\zeta_i$, and a query $x_q\sim\mathcal N(0, \Lambda_q)$. The loss is

    $$L = \tfrac12\,\mathbb E\,(\hat y - w\cdot x_q)^2,$$

    exact, from Gaussian moments; the label of the query has no noise. `risk` is the same without the ½. A shift between
    training and test is a second task: `InContextRegression(4 * covariance, length=100).risk(model)`.

    **Arguments:**

    - `covariance`: $\Lambda$, positive definite, shape `(inputs, inputs)`.
    - `length`: $N \ge 1$, the number of examples in a prompt; `math.inf` for the limit of long prompts.
    - `task_covariance`: $\Omega$, positive semi-definite; `None` for the identity.
    - `query_covariance`: $\Lambda_q$, positive semi-definite; `None` for $\Lambda$.
    - `noise_variance`: $\sigma^2 \ge 0$.

    **Raises:**

    `ValueError` for an empty prompt, a negative noise, or a matrix that is no covariance.
    """

    covariance: Float[Array, "inputs inputs"]
    task_covariance: Float[Array, "inputs inputs"]
    query_covariance: Float[Array, "inputs inputs"]
    noise_variance: Float[Array, ""]
    length: int | float = eqx.field(static=True)

    def __init__(
        self,
        covariance: ArrayLike,
        length: ArrayLike,
        *,
        task_covariance: ArrayLike | None = None,
        query_covariance: ArrayLike | None = None,
        noise_variance: ArrayLike = 0.0,
    ):
        covariance = check_psd("covariance", covariance)
        size, dtype = covariance.shape[0], covariance.dtype
        values = jnp.linalg.eigvalsh(covariance)
        message = "`covariance` must be positive definite; its lowest eigenvalue is zero up to rounding."
        self.covariance = require(covariance, values[0] > size * jnp.finfo(dtype).eps * values[-1], message)
        self.length = check_length(length)
        if task_covariance is None:
            self.task_covariance = jnp.eye(size, dtype=dtype)
        else:
            self.task_covariance = check_psd("task_covariance", task_covariance, size).astype(dtype)
        if query_covariance is None:
            self.query_covariance = self.covariance
        else:
            self.query_covariance = check_psd("query_covariance", query_covariance, size).astype(dtype)
        self.noise_variance = check_positive("noise_variance", noise_variance, zero=True, scalar=True).astype(dtype)

    @property
    def inputs(self) -> int:
        """The number of inputs, $d$."""
        return self.covariance.shape[0]

    @property
    def context_moment(self) -> Float[Array, "inputs inputs"]:
        r"""$B = \mathbb E[bb^\top] = (1 + \tfrac1N)\Lambda\Omega\Lambda + \tfrac1N(\operatorname{tr}\Omega\Lambda +
        \sigma^2)\Lambda$, with $b = \tfrac1N\sum_iy_ix_i$: what a prompt says about its task."""
        spread = jnp.sum(self.task_covariance * self.covariance) + self.noise_variance
        signal = self.covariance @ self.task_covariance @ self.covariance
        return (1 + 1 / self.length) * signal + (spread / self.length) * self.covariance

    @property
    def drive(self) -> Float[Array, "inputs inputs"]:
        r"""$\mathbb E[b\,w^\top x_qx_q^\top] = \Lambda\Omega\Lambda_q$, what pulls the effective map away from zero."""
        return self.covariance @ self.task_covariance @ self.query_covariance

    @property
    def optimum(self) -> Float[Array, "inputs inputs"]:
        r"""$B^{-1}\Lambda\Omega$, the best effective map; $\Gamma^{-1}$ with $\Gamma = (1 + \tfrac1N)\Lambda +
        \tfrac1N(\operatorname{tr}\Lambda + \sigma^2)I$ for isotropic tasks."""
        return jnp.linalg.solve(self.context_moment, self.covariance @ self.task_covariance)

    def risk_of_map(self, effective_map: Float[Array, "inputs inputs"]) -> Float[Array, ""]:
        r"""$\mathbb E(b^\top\!A\,x_q - w\cdot x_q)^2$ of an effective map $A$ (no ½)."""
        error = self.gradient_of_map(effective_map) - self.drive
        return jnp.sum(effective_map * error) + jnp.sum(self.task_covariance * self.query_covariance)

    def loss_of_map(self, effective_map: Float[Array, "inputs inputs"]) -> Float[Array, ""]:
        """The loss of an effective map, half its risk."""
        return self.risk_of_map(effective_map) / 2

    def gradient_of_map(self, effective_map: Float[Array, "inputs inputs"]) -> Float[Array, "inputs inputs"]:
        r"""The gradient of the loss with respect to the effective map, $BA\Lambda_q - \Lambda\Omega\Lambda_q$."""
        return self.context_moment @ effective_map @ self.query_covariance - self.drive

    def risk(self, model: PyTree) -> Float[Array, ""]:
        r"""$\mathbb E(\hat y - w\cdot x_q)^2$ of a linear attention network with any weights (no ½)."""
        if not isinstance(model, AbstractLinearAttention):
            raise ValueError(
                "`model` must be linear attention (LinearAttention, SeparateAttention) for an exact average; got "
                f"{type(model).__name__}. For other models there are `sample` and `batch_loss`."
            )
        if model.inputs != self.inputs:
            raise ValueError(f"`model` must have {self.inputs} inputs to fit `task`; got {model.inputs}.")
        return mean_squared_error(
            model,
            covariance=self.covariance,
            task_covariance=self.task_covariance,
            query_covariance=self.query_covariance,
            noise_variance=self.noise_variance,
            length=self.length,
        )

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Half the risk."""
        return self.risk(model) / 2

    @eqx.filter_jit
    def sample(self, key: PRNGKeyArray, batch: int) -> tuple[Float[Array, "batch width tokens"], Float[Array, " batch"]]:
        """Prompts, and the answers to their queries."""
        if not isinstance(self.length, int):
            raise ValueError("`length` must be finite to draw prompts; got inf.")
        key, noise_key = jax.random.split(key)
        normal = standard_normal(key, (batch, self.length + 2, self.inputs), self.covariance.dtype)
        weights = normal[:, 0] @ _root(self.task_covariance)
        context, query = normal[:, 2:] @ _root(self.covariance), normal[:, 1] @ _root(self.query_covariance)
        noise = jnp.sqrt(self.noise_variance) * standard_normal(noise_key, context.shape[:2], normal.dtype)
        labels = jnp.einsum("bni,bi->bn", context, weights) + noise
        tokens = jnp.concatenate([context, labels[:, :, None]], axis=2)
        last = jnp.pad(query, ((0, 0), (0, 1)))
        prompts = jnp.concatenate([tokens, last[:, None, :]], axis=1)
        return jnp.swapaxes(prompts, 1, 2), jnp.sum(query * weights, axis=1)

    def batch_loss(
        self, model: PyTree, batch: tuple[Float[Array, "batch width tokens"], Float[Array, " batch"]]
    ) -> Float[Array, ""]:
        """Half the squared error, averaged over the batch; for any model that answers a prompt with a number."""
        prompts, answers = batch
        return jnp.mean((jax.vmap(model)(prompts) - answers) ** 2) / 2


def _root(covariance: Float[Array, "inputs inputs"]) -> Float[Array, "inputs inputs"]:
    values, vectors = jnp.linalg.eigh(covariance)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]) @ vectors.T
