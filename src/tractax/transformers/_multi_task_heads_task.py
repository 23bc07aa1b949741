r"""What softmax heads that share several tasks cost in the limit of many inputs, and how many of them it takes.

Set-up. `MultiTaskRegression`, with $T$ tasks on supports $S_n$ of $d_n$ inputs; `MultiTaskHeads`, with a vector
$\omega_h$ and weights $\mu_{nh}$ for each head. The loss has its ½, risks have none.

Theory. For many inputs and examples, with the step $s_n = \sum_h\mu_{nh}\omega_h$ that is taken for task $n$,

$$\frac{R_n}{P_n} = \frac1{d_n}\sum_{j\in S_n}(1 - s_{nj})^2
+ \kappa_n\sum_{hk}\mu_{nh}\mu_{nk}\,e^{\omega_h\cdot\omega_k},\qquad\kappa_n = \frac{1 + \sigma^2/P_n}L,$$

up to $O(1/d)$. The last sum is one over tensors $\sum_h\mu_{nh}\,\omega_h^{\otimes m}$ of all orders $m$, of non-negative
terms; that of first order is $\lVert s_n\rVert^2$. Hence no number of heads does better on a task than

$$R_n/P_n = 1 - \frac1{1 + d_n\kappa_n},\qquad s_{nj} = \frac{1_{j\in S_n}}{1 + d_n\kappa_n},$$

and as $\omega\to0$ it is approached by those that make the lower orders right, for tasks with independent supports:

- $\sum_h\mu_{nh} = 0$ besides $s_n$ takes $T + 1$ heads, whose $\omega_h$ are then the corners of a simplex that all
  tasks share. The second order remains and costs $O(\omega^2)$.
- $\sum_h\mu_{nh}\,\omega_h\otimes\omega_h = 0$ as well takes $2T$ heads, which must be $T$ opposite pairs. (At the
  $\omega_h$, quadratic forms may take $T$ independent rows of values only. The squares of the basis dual to $T$ of the
  $\omega_h$ are as many, and forms that vanish on these must vanish on all.) What remains is $O(\omega^4)$.

Pairs of a task's own, $\omega = \pm\epsilon1_{S_n}$, are one choice. With orthogonal pairs of one size that are turned
among the tasks, the loss is the same.

Source: model and observation of He, Pan, Chen and Yang 2025, arXiv 2503.12734; the loss for several tasks and the number
of heads are derived here.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractTask, check_matrix
from ._multi_task_heads import MultiTaskHeads
from ._multi_task_regression import MultiTaskRegression


class MultiTaskHeadsTask(AbstractTask):
    """Half the risk of `MultiTaskHeads`, summed over tasks, in the limit of many inputs.

    **Arguments:**

    - `data`: a `MultiTaskRegression`.

    **Raises:**

    `ValueError` for another task.
    """

    data: MultiTaskRegression

    def __init__(self, data: Any):
        if not isinstance(data, MultiTaskRegression):
            raise ValueError(f"`data` must be a MultiTaskRegression; got {type(data).__name__}.")
        self.data = data

    @property
    def crowding(self) -> Float[Array, " tasks"]:
        r"""$\kappa_n = (1 + \sigma^2/P_n)/L$, what the scatter of the labels costs."""
        return (1 + self.data.noise_variance / self.data.powers) / self.data.length

    def risks(self, model: PyTree) -> Float[Array, " tasks"]:
        """$R_n$, the mean squared error (no ½) on each task, to leading order in $1/d$."""
        if not isinstance(model, MultiTaskHeads):
            raise ValueError(f"`model` must be MultiTaskHeads; got {type(model).__name__}.")
        if (model.tasks, model.inputs) != self.data.supports.shape:
            raise ValueError(
                f"`model` must have {self.data.tasks} tasks and {self.data.inputs} inputs to fit `data`; got "
                f"{model.tasks} and {model.inputs}."
            )
        supports, dtype = self.data.supports.astype(model.mu.dtype), model.mu.dtype
        missing = jnp.sum(supports * (1 - model.steps) ** 2, axis=1) / self.data.sizes.astype(dtype)
        scatter = jnp.sum((model.mu @ jnp.exp(model.omega @ model.omega.T)) * model.mu, axis=1)
        return self.data.powers.astype(dtype) * (missing + self.crowding.astype(dtype) * scatter)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Half the sum of the risks."""
        return jnp.sum(self.risks(model)) / 2

    @property
    def infima(self) -> Float[Array, " tasks"]:
        """The risks (no ½) below which no number of heads goes."""
        return self.data.powers * (1 - 1 / (1 + self.data.sizes * self.crowding))

    def best_heads(self, omega: ArrayLike) -> MultiTaskHeads:
        r"""Heads with these $\omega$ and the best $\mu$ for them.

        **Arguments:**

        - `omega`: shape `(heads, inputs)`, no two heads alike. Near zero the equations for $\mu$ are nearly singular.

        **Raises:**

        `ValueError` for another number of inputs, or what is not finite.
        """
        omega = check_matrix("omega", omega, (None, self.data.inputs)).astype(self.data.supports.dtype)
        weights = self.data.supports / self.data.sizes[:, None]
        signal = jnp.einsum("hi,ni,ki->nhk", omega, weights, omega)
        scatter = self.crowding[:, None, None] * jnp.exp(omega @ omega.T)[None]
        mu = jnp.linalg.solve(signal + scatter, (weights @ omega.T)[:, :, None])[:, :, 0]
        return MultiTaskHeads(omega, mu)
