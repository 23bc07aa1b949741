r"""Softmax attention with two numbers a head, the pattern that training on regression in context ends in.

Source: He, Pan, Chen and Yang 2025, arXiv 2503.12734.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import as_float_array, check_count
from ._softmax_attention import SoftmaxAttention


class SoftmaxHeads(eqx.Module):
    r"""$\hat y = \sum_h\mu_h\sum_l y_l\,\mathrm{softmax}_l(\omega_h\,x_l\cdot x_q)$, two numbers for each head.

    It is a network, which answers prompts of any number of inputs, and the state of its theory. `network` returns the
    softmax attention that computes the same, with $W^{KQ}_h = \omega_h\,\mathrm{diag}(I, 0)$ and $W^{OV}_h =
    \mu_h\,\mathrm{diag}(0, 1)$.

    **Arguments:**

    - `omega`: $\omega_h$, how sharply a head attends to examples like the query (negative: unlike it), shape `(heads,)`.
    - `mu`: $\mu_h$, the weight of the labels that it finds, shape `(heads,)`.

    **Raises:**

    `ValueError` for shapes that differ or hold no head.
    """

    omega: Float[Array, "*times heads"] = eqx.field(converter=partial(as_float_array, "omega"))
    mu: Float[Array, "*times heads"] = eqx.field(converter=partial(as_float_array, "mu"))

    def __check_init__(self):
        if self.omega.shape != self.mu.shape or self.omega.ndim == 0 or self.omega.size == 0:
            raise ValueError(
                "`omega` and `mu` must hold one number for each of the same heads; got shapes "
                f"{self.omega.shape} and {self.mu.shape}."
            )
        if self.omega.dtype != self.mu.dtype:
            raise ValueError(f"`omega` and `mu` must have one dtype; got {self.omega.dtype} and {self.mu.dtype}.")

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self.omega.shape[-1]

    @property
    def step(self) -> Float[Array, "*times"]:
        r"""$\sum_h\mu_h\omega_h$: the learning rate of the gradient step that heads with small $\omega$ take."""
        return jnp.sum(self.mu * self.omega, axis=-1)

    def attention(self, prompt: Float[Array, "width tokens"]) -> Float[Array, "heads examples"]:
        """What the query pays to each example."""
        scores = prompt[:-1, -1] @ prompt[:-1, :-1]
        return jax.nn.softmax(self.omega[:, None] * scores[None, :], axis=1)

    def __call__(self, prompt: Float[Array, "width tokens"]) -> Float[Array, ""]:
        """The prediction for one prompt: columns are $(x_l, y_l)$, the last one $(x_q, 0)$."""
        return self.mu @ (self.attention(prompt) @ prompt[-1, :-1])

    def network(self, inputs: int) -> SoftmaxAttention:
        """The softmax attention of this many inputs that computes the same."""
        inputs = check_count("inputs", inputs)
        key_query = jnp.diag(jnp.ones(inputs + 1, self.mu.dtype).at[-1].set(0.0))
        value = jnp.zeros_like(key_query).at[-1, -1].set(1.0)
        return SoftmaxAttention(self.mu[:, None, None] * value[None], self.omega[:, None, None] * key_query[None])


def softmax_heads(model: Any) -> SoftmaxHeads:
    r"""The two numbers of each head of a network: $\omega_h$, the mean of the diagonal of $W^{KQ}_h$ between inputs, and
    $\mu_h$, the entry of $W^{OV}_h$ between labels.

    **Raises:**

    `ValueError` for anything but a `SoftmaxAttention` or `SoftmaxHeads` network.
    """
    if isinstance(model, SoftmaxHeads):
        return model
    if not isinstance(model, SoftmaxAttention):
        raise ValueError(f"`model` must be a SoftmaxAttention or SoftmaxHeads network; got {type(model).__name__}.")
    diagonal = jnp.diagonal(model.key_query[..., :-1, :-1], axis1=-2, axis2=-1)
    return SoftmaxHeads(jnp.mean(diagonal, axis=-1), model.value[..., -1, -1])
