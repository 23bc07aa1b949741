r"""Softmax heads that answer several regressions at once: a number for each input, and a weight for each task.

Source: He, Pan, Chen and Yang 2025, arXiv 2503.12734.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import as_float_array


class MultiTaskHeads(eqx.Module):
    r"""$\hat y_n = \sum_h\mu_{nh}\sum_l y_{ln}\,\mathrm{softmax}_l\big(\sum_j\omega_{hj}\,x_{lj}x_{qj}\big)$ for
    every task $n$.

    All tasks share the attention of a head, $W^{KQ}_h = \mathrm{diag}(\omega_h, 0)$; each has its own output weights.
    With one task and equal $\omega_{hj}$ these are `SoftmaxHeads`.

    **Arguments:**

    - `omega`: $\omega_{hj}$, how sharply a head attends by each input, shape `(heads, inputs)`.
    - `mu`: $\mu_{nh}$, the weight of the labels that it finds for each task, shape `(tasks, heads)`.

    **Raises:**

    `ValueError` for shapes that do not fit, or hold no head.
    """

    omega: Float[Array, "*times heads inputs"] = eqx.field(converter=partial(as_float_array, "omega"))
    mu: Float[Array, "*times tasks heads"] = eqx.field(converter=partial(as_float_array, "mu"))

    def __check_init__(self):
        omega, mu = self.omega.shape, self.mu.shape
        if len(omega) < 2 or omega[:-2] != mu[:-2] or len(mu) < 2 or omega[-2] != mu[-1] or 0 in omega + mu:
            raise ValueError(
                "`omega` and `mu` must have shapes (heads, inputs) and (tasks, heads), without empty axes; got "
                f"{omega} and {mu}."
            )
        if self.omega.dtype != self.mu.dtype:
            raise ValueError(f"`omega` and `mu` must have one dtype; got {self.omega.dtype} and {self.mu.dtype}.")

    @property
    def inputs(self) -> int:
        """The number of inputs."""
        return self.omega.shape[-1]

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return self.mu.shape[-2]

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self.omega.shape[-2]

    @property
    def steps(self) -> Float[Array, "*times tasks inputs"]:
        r"""$\sum_h\mu_{nh}\omega_{hj}$: the step of gradient descent that heads with small $\omega$ take."""
        return self.mu @ self.omega

    @property
    def pairing(self) -> Float[Array, "*times"]:
        r"""How far heads come in opposite pairs: 1 if all do, $1/T$ for the $T + 1$ corners of a regular simplex.

        The mean over heads, weighted by $\mu^2$, of the largest $-\cos(\omega_h, \omega_k)$.
        """
        norm = jnp.linalg.norm(self.omega, axis=-1, keepdims=True)
        direction = self.omega / jnp.where(norm == 0, 1.0, norm)
        opposed = jnp.max(-(direction @ jnp.swapaxes(direction, -1, -2)), axis=-1)
        return jnp.sum(self._shares * opposed, axis=-1)

    @property
    def dedication(self) -> Float[Array, "*times"]:
        r"""How far each head works for one task: the share of $\mu^2$ that heads have in the task they serve most."""
        power = jnp.sum(self.mu**2, axis=-2)
        most = jnp.max(self.mu**2, axis=-2) / jnp.where(power == 0, 1.0, power)
        return jnp.sum(self._shares * most, axis=-1)

    @property
    def _shares(self) -> Float[Array, "*times heads"]:
        power = jnp.sum(self.mu**2, axis=-2)
        total = jnp.sum(power, axis=-1, keepdims=True)
        return power / jnp.where(total == 0, 1.0, total)

    def attention(self, prompt: Float[Array, "width tokens"]) -> Float[Array, "heads examples"]:
        """What the query pays to each example."""
        examples, query = prompt[: self.inputs, :-1], prompt[: self.inputs, -1]
        return jax.nn.softmax((self.omega * query[None, :]) @ examples, axis=1)

    def __call__(self, prompt: Float[Array, "width tokens"]) -> Float[Array, " tasks"]:
        """The predictions for one prompt: columns are $(x_l, y_{l1},\\dots,y_{lT})$, the last one $(x_q, 0)$."""
        found = self.attention(prompt) @ prompt[self.inputs :, :-1].T
        return jnp.sum(self.mu * found.T, axis=1)
