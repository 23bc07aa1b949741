"""One layer of softmax attention that answers a query after a prompt of labelled examples."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import check_matrix


class SoftmaxAttention(eqx.Module):
    r"""$\hat y = \Big[\sum_h W^{OV}_h\,\sum_{l\le N} z_l\,\mathrm{softmax}_l\big(z_l^\top W^{KQ}_h z_q\big)\Big]_{y}$.

    A prompt has shape `(width, N + 1)`: columns are tokens $z_l = (x_l, y_l)$, the last one is the query $z_q = (x_q,
    0)$, and `width` is the number of inputs plus one. The query attends to the examples, not to itself; scores are not
    divided by $\sqrt{\text{width}}$, which the weights absorb. Only the last row of $W^{OV}_h$ reaches the prediction.

    **Arguments:**

    - `value`: $W^{OV}_h$ (values and output projection in one), shape `(heads, width, width)`.
    - `key_query`: $W^{KQ}_h$, of the same shape.

    **Raises:**

    `ValueError` for shapes that do not fit or numbers that are not finite.
    """

    value: Float[Array, "*times heads width width"]
    key_query: Float[Array, "*times heads width width"]

    def __init__(self, value: ArrayLike, key_query: ArrayLike):
        self.value = check_matrix("value", value, (None, None, None))
        heads, width = self.value.shape[:2]
        if self.value.shape[2] != width or width < 2:
            raise ValueError(
                f"`value` must hold square matrices of at least two rows, one for each head; got {self.value.shape}."
            )
        self.key_query = check_matrix("key_query", key_query, (heads, width, width)).astype(self.value.dtype)

    @property
    def inputs(self) -> int:
        """The number of inputs, $d$."""
        return self.value.shape[-1] - 1

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self.value.shape[-3]

    def attention(self, prompt: Float[Array, "width tokens"]) -> Float[Array, "heads examples tokens"]:
        """The attention map of each head; a column holds what one token, the query last, pays to the examples."""
        return jax.nn.softmax(jnp.einsum("il,hij,jt->hlt", prompt[:, :-1], self.key_query, prompt), axis=1)

    def __call__(self, prompt: Float[Array, "width tokens"]) -> Float[Array, ""]:
        """The prediction for one prompt."""
        scores = jnp.einsum("il,hij,j->hl", prompt[:, :-1], self.key_query, prompt[:, -1])
        return jnp.sum((self.value[:, -1] @ prompt[:, :-1]) * jax.nn.softmax(scores, axis=1))
