r"""What the heads of softmax attention cost in the limit of many inputs, and the best they can do.

Set-up. Prompts of `InContextRegression` with isotropic inputs, tasks and queries: $x, x_q\sim\mathcal N(0, \lambda I)$,
$w\sim\mathcal N(0, \rho I)$, labels with noise $\sigma^2$; power $P = \rho\lambda d$. A head attends with
$\mathrm{softmax}_l(\omega_hx_l\cdot x_q)$ and adds $\mu_h$ of what it finds. The loss has its ½, a risk has none, and the
label of the query has no noise.

Theory. For $d, L\to\infty$ at fixed $d/L$ and $\sqrt d\,\tilde\omega_h$, with $\tilde\omega = \lambda\omega$,

$$\frac{R}{P} = (1 - \mu\cdot\tilde\omega)^2 + \kappa\sum_{hk}\mu_h\mu_k\,e^{d\tilde\omega_h\tilde\omega_k},\qquad
\kappa = \frac{1 + \sigma^2/P}L,$$

and the risk at finite sizes differs by $O(1/d)$. One head does best at $\tilde\omega = 1/\sqrt d$, $\mu =
\sqrt d/(1 + e\,d\kappa)$, with $R/P = 1 - 1/(1 + e\,d\kappa)$. No number of heads goes below $R/P = 1 - 1/(1 + d\kappa)$,
which two heads of opposite signs approach as $\omega\to0$ with $\mu\cdot\tilde\omega = 1/(1 + d\kappa)$.

Source: He, Pan, Chen and Yang 2025, arXiv 2503.12734; their loss is $R + \sigma^2$. That the bound holds for any number
of heads follows from the series of the exponential, whose terms are all non-negative.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractTask, check_positive, relative_norm, require, tolerance_for
from ._in_context_regression import InContextRegression
from ._softmax_heads import SoftmaxHeads


class SoftmaxHeadsTask(AbstractTask):
    """Half the risk of `SoftmaxHeads` on isotropic prompts, in the limit of many inputs.

    **Arguments:**

    - `data`: an `InContextRegression` of finite length whose inputs and tasks are isotropic and whose queries are like
      the examples; the paper's has `task_covariance=jnp.eye(d) / d`.

    **Raises:**

    `ValueError` for another task, infinite prompts, or covariances that are not isotropic.
    """

    data: InContextRegression

    def __init__(self, data: Any):
        self.data = check_isotropic(data)

    @property
    def variance(self) -> Float[Array, ""]:
        r"""$\lambda$, of one input."""
        return self.data.covariance[0, 0]

    @property
    def power(self) -> Float[Array, ""]:
        r"""$P$, the variance of a label without its noise, which is the risk of answering zero."""
        return self.data.inputs * self.variance * self.data.task_covariance[0, 0]

    @property
    def crowding(self) -> Float[Array, ""]:
        r"""$\kappa = (1 + \sigma^2/P)/L$, what the scatter of the labels costs."""
        return (1 + self.data.noise_variance / self.power) / self.data.length

    def risk(self, model: PyTree) -> Float[Array, ""]:
        r"""$R$, the mean squared error (no ½) to leading order in $1/d$."""
        omega, mu = self._check(model)
        scatter = mu @ _similarity(omega, self.data.inputs) @ mu
        return self.power * ((1 - mu @ omega) ** 2 + self.crowding * scatter)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Half the risk."""
        return self.risk(model) / 2

    def gradient(self, model: PyTree) -> SoftmaxHeads:
        r"""The gradient of the loss with respect to $\omega$ and $\mu$."""
        omega, mu = self._check(model)
        missing, similarity = 1 - mu @ omega, _similarity(omega, self.data.inputs)
        to_omega = mu * (self.data.inputs * self.crowding * (similarity @ (mu * omega)) - missing)
        to_mu = self.crowding * (similarity @ mu) - omega * missing
        return SoftmaxHeads(self.power * self.variance * to_omega, self.power * to_mu)

    @property
    def best_head(self) -> SoftmaxHeads:
        """The optimum of one head; with both signs turned it is another."""
        size = jnp.asarray(self.data.inputs, self.power.dtype)
        mu = jnp.sqrt(size) / (1 + jnp.e * size * self.crowding)
        return SoftmaxHeads((1 / (self.variance * jnp.sqrt(size)))[None], mu[None])

    @property
    def best_step(self) -> Float[Array, ""]:
        r"""$\mu\cdot\tilde\omega$ of the best many heads, $1/(1 + d\kappa)$."""
        return 1 / (1 + self.data.inputs * self.crowding)

    @property
    def infimum(self) -> Float[Array, ""]:
        """The risk (no ½) below which no number of heads goes, and which two approach."""
        return self.power * (1 - self.best_step)

    def opposite_heads(self, omega: ArrayLike) -> SoftmaxHeads:
        r"""Two heads $\pm\omega$ with the best $\mu$ for them, $\mu = \tilde\omega/(2\tilde\omega^2 + 2\kappa\sinh
        d\tilde\omega^2)$ each: near the infimum for a small $\omega > 0$."""
        omega = check_positive("omega", omega, scalar=True).astype(self.power.dtype)
        scaled = self.variance * omega
        scatter = self.crowding * jnp.sinh(self.data.inputs * scaled**2)
        mu = scaled / (2 * scaled**2 + 2 * scatter)
        return SoftmaxHeads(jnp.stack([omega, -omega]), jnp.stack([mu, -mu]))

    def _check(self, model: PyTree) -> tuple[Float[Array, " heads"], Float[Array, " heads"]]:
        r"""$\tilde\omega$ and $\mu$ of a network."""
        if not isinstance(model, SoftmaxHeads):
            raise ValueError(
                f"`model` must be a SoftmaxHeads network; got {type(model).__name__}. Full softmax attention is trained "
                "on prompts: use the InContextRegression itself, with tx.GradientDescent(..., batch_size=...)."
            )
        return self.variance.astype(model.mu.dtype) * model.omega, model.mu


def _similarity(omega: Float[Array, " heads"], inputs: int) -> Float[Array, "heads heads"]:
    """$e^{d\\omega_h\\omega_k}$: how alike two heads attend."""
    return jnp.exp(inputs * omega[:, None] * omega[None, :])


def check_heads(model: Any, task: Any) -> SoftmaxHeads:
    """The model, if it is softmax heads and the task is theirs."""
    if not isinstance(task, SoftmaxHeadsTask):
        raise ValueError(f"`task` must be a SoftmaxHeadsTask; got {type(task).__name__}.")
    if not isinstance(model, SoftmaxHeads):
        raise ValueError(f"`model` must be SoftmaxHeads; got {type(model).__name__}. `softmax_heads` reads them off.")
    return model


def check_isotropic(data: Any) -> InContextRegression:
    """The task, if it is isotropic regression in context with prompts of finite length."""
    if not isinstance(data, InContextRegression):
        raise ValueError(f"`data` must be an InContextRegression; got {type(data).__name__}.")
    if not isinstance(data.length, int):
        raise ValueError("`data` must have prompts of finite length for softmax heads; got inf.")
    unit = jnp.eye(data.inputs, dtype=data.covariance.dtype)
    uneven = jnp.stack([relative_norm(x - x[0, 0] * unit, x) for x in (data.covariance, data.task_covariance)])
    shifted = relative_norm(data.query_covariance - data.covariance, data.covariance)
    even = (jnp.max(uneven) <= tolerance_for(unit)) & (shifted <= tolerance_for(unit))
    message = "`data` must have isotropic inputs and tasks, and queries like the examples, for softmax heads."
    covariance = require(data.covariance, even & (data.task_covariance[0, 0] > 0), message)
    return eqx.tree_at(lambda task: task.covariance, data, covariance)
