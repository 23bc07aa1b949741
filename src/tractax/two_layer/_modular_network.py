"""Two-layer networks that take two residues and answer with a score for every residue."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ..core import check_count, check_key, check_matrix, check_positive, standard_normal


class AbstractModularNetwork(eqx.Module):
    r"""$f_j(x, y) = \sum_m\xi_m[j]\,\sigma(\theta_m[x] + \theta'_m[y])$ for residues $x, y, j$ modulo $p$.

    **Attributes:**

    - `readout`: $\xi_m[j]$, one neuron a row, shape `(neurons, p)`.
    - `activation`: $\sigma$, a function of arrays.
    """

    readout: eqx.AbstractVar[Float[Array, "*times neurons p"]]
    activation: eqx.AbstractVar[Callable]

    @property
    @abc.abstractmethod
    def embeddings(self) -> tuple[Float[Array, "*times neurons p"], Float[Array, "*times neurons p"]]:
        r"""$\theta_m[x]$ and $\theta'_m[y]$."""

    @property
    def p(self) -> int:
        """The modulus."""
        return self.readout.shape[-1]

    @property
    def neurons(self) -> int:
        """The number of neurons."""
        return self.readout.shape[-2]

    def __call__(self, x: Int[Array, ""], y: Int[Array, ""]) -> Float[Array, " p"]:
        """The scores of all answers to one pair."""
        left, right = self.embeddings
        return self.activation(left[:, x] + right[:, y]) @ self.readout

    @eqx.filter_jit
    def logits(self) -> Float[Array, "p p p"]:
        """The scores of all pairs, indexed by $x$, $y$ and the answer."""
        left, right = self.embeddings
        hidden = self.activation(left[:, :, None] + right[:, None, :])
        return jnp.einsum("mxy,mj->xyj", hidden, self.readout)


class ModularNetwork(AbstractModularNetwork):
    r"""The same embedding for both residues, $f_j(x, y) = \sum_m\xi_m[j]\,\sigma(\theta_m[x] + \theta_m[y])$.

    **Arguments:**

    - `embedding`: $\theta$, one neuron a row, shape `(neurons, p)`.
    - `readout`: $\xi$, of the same shape.
    - `activation`: $\sigma$, a function of arrays; `jnp.square` by default, or `jax.nn.relu`.

    **Raises:**

    `ValueError` for shapes that do not fit or numbers that are not finite.
    """

    embedding: Float[Array, "*times neurons p"]
    readout: Float[Array, "*times neurons p"]
    activation: Callable = eqx.field(static=True)

    def __init__(self, embedding: ArrayLike, readout: ArrayLike, activation: PyTree = jnp.square):
        self.embedding = check_matrix("embedding", embedding)
        self.readout = check_matrix("readout", readout, self.embedding.shape).astype(self.embedding.dtype)
        self.activation = _check_activation(activation)

    @classmethod
    def from_amplitudes(
        cls,
        embedding: ArrayLike,
        readout: ArrayLike,
        activation: PyTree = jnp.square,
    ) -> "ModularNetwork":
        r"""The network with $\theta_m[x] = \mathrm{Re}\sum_ka_{mk}e^{2\pi ikx/p}$ and $\xi_m[j]$ likewise.

        **Arguments:**

        - `embedding`, `readout`: $a$ and $b$, complex, of the frequencies $k = 1, \dots, (p-1)/2$, which tell $p$;
          shape `(neurons, frequencies)`.
        - `activation`: as above.
        """
        a, b = jnp.asarray(embedding), jnp.asarray(readout)
        if a.ndim != 2 or 0 in a.shape or a.shape != b.shape:
            raise ValueError(
                "`embedding` and `readout` must have the same shape (neurons, frequencies) without empty axes; "
                f"got {a.shape} and {b.shape}."
            )
        p = 2 * a.shape[1] + 1

        def waves(amplitudes: Array) -> Array:
            real, imaginary = jnp.real(amplitudes), jnp.imag(amplitudes)
            angles = residue_angles(p, real.dtype)
            return real @ jnp.cos(angles) - imaginary @ jnp.sin(angles)

        return cls(waves(a), waves(b), activation)

    @property
    def embeddings(self) -> tuple[Float[Array, "*times neurons p"], Float[Array, "*times neurons p"]]:
        r"""$\theta$, twice."""
        return self.embedding, self.embedding


class SeparateModularNetwork(AbstractModularNetwork):
    r"""An embedding for each residue, $f_j(x, y) = \sum_m\xi_m[j]\,\sigma(\theta_m[x] + \theta'_m[y])$.

    **Arguments:**

    - `left`, `right`: $\theta$ and $\theta'$, one neuron a row, shape `(neurons, p)`.
    - `readout`: $\xi$, of the same shape.
    - `activation`: $\sigma$, a function of arrays; `jnp.square` by default, or `jax.nn.relu`.

    **Raises:**

    `ValueError` for shapes that do not fit or numbers that are not finite.
    """

    left: Float[Array, "*times neurons p"]
    right: Float[Array, "*times neurons p"]
    readout: Float[Array, "*times neurons p"]
    activation: Callable = eqx.field(static=True)

    def __init__(self, left: ArrayLike, right: ArrayLike, readout: ArrayLike, activation: PyTree = jnp.square):
        self.left = check_matrix("left", left)
        self.right = check_matrix("right", right, self.left.shape).astype(self.left.dtype)
        self.readout = check_matrix("readout", readout, self.left.shape).astype(self.left.dtype)
        self.activation = _check_activation(activation)

    @property
    def embeddings(self) -> tuple[Float[Array, "*times neurons p"], Float[Array, "*times neurons p"]]:
        r"""$\theta$ and $\theta'$."""
        return self.left, self.right


def gaussian_modular_network(
    p: int, neurons: int, *, scale: ArrayLike, key: PRNGKeyArray | None, activation: PyTree = jnp.square
) -> ModularNetwork:
    """Independent normal weights.

    **Arguments:**

    - `p`: the modulus, at least 3.
    - `neurons`: how many.
    - `scale`: the standard deviation, positive.
    - `key`: for the draw.
    - `activation`: as in `ModularNetwork`.
    """
    p, neurons = check_modulus(p), check_count("neurons", neurons)
    check_key(key)
    scale = check_positive("scale", scale, scalar=True)
    embedding, readout = scale * standard_normal(key, (2, neurons, p), scale.dtype)
    return ModularNetwork(embedding, readout, activation)


@eqx.filter_jit
def residue_angles(p: int, dtype: jnp.dtype) -> Float[Array, "frequencies p"]:
    """$2\\pi kx/p$ for the frequencies $k < p/2$ and all $x$, by whole turns less, so that large $p$ costs no digits."""
    turns = (jnp.arange(1, (p + 1) // 2)[:, None] * jnp.arange(p)[None, :]) % p
    return (2 * jnp.pi / p) * turns.astype(dtype)


def same_function(activation: Callable, known: Callable) -> bool:
    """Whether an activation has the values of a known one."""
    # Now, also where the weights are being traced.
    with jax.ensure_compile_time_eval():
        points = jnp.asarray([-2.0, -0.5, 0.0, 0.5, 2.0])
        return bool(jnp.all(activation(points) == known(points)))


def check_modulus(p: Any, *, odd: bool = False) -> int:
    """A modulus, if it is one (and odd, where an even one would have a frequency of its own)."""
    whole = isinstance(p, int | np.integer) and not isinstance(p, bool)
    if not whole or p < 3 or (odd and p % 2 == 0):
        raise ValueError(f"`p` must be {'an odd' if odd else 'a whole'} number of at least 3; got {p!r}.")
    return int(p)


def _check_activation(activation: PyTree) -> Callable:
    if not callable(activation):
        raise ValueError(f"`activation` must be a function of arrays, such as jnp.square; got {activation!r}.")
    return activation
