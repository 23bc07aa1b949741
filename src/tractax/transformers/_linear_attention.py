"""One layer of linear self-attention, with merged or with separate keys and queries."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array, check_matrix


class AbstractLinearAttention(eqx.Module):
    r"""$E \mapsto E + \sum_h W^V_h E\,\frac{E^\top W^{KQ}_h E}{N}$ on a prompt of $N$ examples and a query.

    A prompt $E$ has shape `(width, N + 1)`: columns are tokens $(x_i, y_i)$, the last one is the query $(x_q, 0)$, and
    `width` is the number of inputs plus one. The prediction is the last entry of the output's last column.

    **Attributes:**

    - `value`: $W^V_h$ (value and output projection in one), shape `(heads, width, width)`.
    - `key_query`: $W^{KQ}_h$, shape `(heads, width, width)`.
    """

    value: eqx.AbstractVar[Float[Array, "*times heads width width"]]
    key_query: eqx.AbstractVar[Float[Array, "*times heads width width"]]

    @property
    @abc.abstractmethod
    def couplings(self) -> tuple[Array, ...]:
        """The weights that mix inputs and labels: where they vanish, the prediction is that of `effective_map`."""

    @property
    def inputs(self) -> int:
        """The number of inputs, $d$."""
        return self.value.shape[-1] - 1

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self.value.shape[-3]

    @property
    def effective_map(self) -> Float[Array, "*times inputs inputs"]:
        r"""$A = \sum_h v_hU_h$, where the prediction is $b^\top\!A\,x_q$ with $b = \frac1N\sum_iy_ix_i$.

        $v_h$ is the last entry of $W^V_h$, $U_h$ the block of $W^{KQ}_h$ between inputs. For networks whose other blocks
        (`couplings`) vanish; of a recorded trajectory of networks, at every time.
        """
        return jnp.einsum("...h,...hij->...ij", self.value[..., -1, -1], self.key_query[..., :-1, :-1])

    def attention(self, prompt: Float[Array, "width tokens"]) -> Float[Array, "heads tokens tokens"]:
        """The attention map $E^\\top W^{KQ}_h E/N$ of each head; a column holds what one token pays to all."""
        return jnp.einsum("it,hij,ju->htu", prompt, self.key_query, prompt) / (prompt.shape[1] - 1)

    def output(self, prompt: Float[Array, "width tokens"]) -> Float[Array, "width tokens"]:
        """The whole output of the layer."""
        return prompt + jnp.einsum("hij,jt,htu->iu", self.value, prompt, self.attention(prompt))

    def __call__(self, prompt: Float[Array, "width tokens"]) -> Float[Array, ""]:
        """The prediction for one prompt: the last entry of `output`, without the rest."""
        read = self.value[:, -1] @ prompt
        attended = jnp.einsum("it,hij,j->ht", prompt, self.key_query, prompt[:, -1]) / (prompt.shape[1] - 1)
        return prompt[-1, -1] + jnp.sum(read * attended)


class LinearAttention(AbstractLinearAttention):
    r"""Linear self-attention whose keys and queries are merged into one matrix per head.

    **Arguments:**

    - `value`: $W^V_h$, shape `(heads, width, width)`, or `(width, width)` for one head.
    - `key_query`: $W^{KQ}_h$, of the same shape.

    **Raises:**

    `ValueError` for shapes that do not fit or numbers that are not finite.
    """

    value: Float[Array, "*times heads width width"]
    key_query: Float[Array, "*times heads width width"]

    def __init__(self, value: ArrayLike, key_query: ArrayLike):
        value, key_query = as_float_array("value", value), as_float_array("key_query", key_query)
        value, key_query = (x[None] if x.ndim == 2 else x for x in (value, key_query))
        self.value = check_matrix("value", value, (None, None, None))
        heads, width = self.value.shape[:2]
        _check_width("value", self.value, width)
        self.key_query = check_matrix("key_query", key_query, (heads, width, width)).astype(self.value.dtype)

    @classmethod
    def embed(cls, value: ArrayLike, key_query: ArrayLike) -> "LinearAttention":
        """The network with these $v_h$ and $U_h$, and zeros elsewhere.

        **Arguments:**

        - `value`: $v_h$, shape `(heads,)`.
        - `key_query`: $U_h$, shape `(heads, inputs, inputs)`.
        """
        value = check_matrix("value", value, (None,))
        key_query = check_matrix("key_query", key_query, (value.shape[0], None, None))
        inputs = key_query.shape[1]
        _check_width("key_query", key_query, inputs)
        return cls(_corner(value, inputs), jnp.pad(key_query, ((0, 0), (0, 1), (0, 1))))

    @property
    def couplings(self) -> tuple[Array, ...]:
        """The rest of the last row of $W^V_h$, and of $W^{KQ}_h$."""
        return self.value[..., -1, :-1], self.key_query[..., -1, :-1]


class SeparateAttention(AbstractLinearAttention):
    r"""Linear self-attention with separate keys and queries of low rank, $W^{KQ}_h = K_h^\top Q_h$.

    **Arguments:**

    - `value`: $W^V_h$, shape `(heads, width, width)`.
    - `key`, `query`: $K_h$ and $Q_h$, shape `(heads, rank, width)`.

    **Raises:**

    `ValueError` for shapes that do not fit or numbers that are not finite.
    """

    value: Float[Array, "*times heads width width"]
    key: Float[Array, "*times heads rank width"]
    query: Float[Array, "*times heads rank width"]

    def __init__(self, value: ArrayLike, key: ArrayLike, query: ArrayLike):
        self.value = check_matrix("value", value, (None, None, None))
        heads, width = self.value.shape[:2]
        _check_width("value", self.value, width)
        self.key = check_matrix("key", key, (heads, None, width)).astype(self.value.dtype)
        self.query = check_matrix("query", query, self.key.shape).astype(self.value.dtype)

    @classmethod
    def embed(cls, value: ArrayLike, key: ArrayLike, query: ArrayLike) -> "SeparateAttention":
        """The network with these $v_h$, $K_h$ and $Q_h$ on the inputs, and zeros elsewhere.

        **Arguments:**

        - `value`: $v_h$, shape `(heads,)`.
        - `key`, `query`: shape `(heads, rank, inputs)`.
        """
        value = check_matrix("value", value, (None,))
        key = check_matrix("key", key, (value.shape[0], None, None))
        query = check_matrix("query", query, key.shape)
        padding = ((0, 0), (0, 0), (0, 1))
        return cls(_corner(value, key.shape[2]), jnp.pad(key, padding), jnp.pad(query, padding))

    @property
    def rank(self) -> int:
        """The rank of each head's keys and queries."""
        return self.key.shape[-2]

    @property
    def key_query(self) -> Float[Array, "*times heads width width"]:
        """$K_h^\\top Q_h$."""
        return jnp.einsum("...hri,...hrj->...hij", self.key, self.query)

    @property
    def couplings(self) -> tuple[Array, ...]:
        """The rest of the last row of $W^V_h$, and the last column of $K_h$."""
        return self.value[..., -1, :-1], self.key[..., -1]


def _corner(value: Float[Array, " heads"], inputs: int) -> Float[Array, "heads width width"]:
    return jnp.pad(value[:, None, None], ((0, 0), (inputs, 0), (inputs, 0)))


def _check_width(name: str, x: Array, width: int) -> None:
    if x.shape[1:] != (width, width):
        raise ValueError(f"`{name}` must hold square matrices, one for each head; got shape {x.shape}.")
