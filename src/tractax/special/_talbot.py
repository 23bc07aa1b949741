"""Where to evaluate a Laplace transform to invert it."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex


def talbot(nodes: int = 32) -> tuple[Complex[Array, " nodes"], Complex[Array, " nodes"]]:
    r"""Points $z_k$ and weights $w_k$ with $f(1) \approx \mathrm{Re}\sum_kw_kF(z_k)$, for a Laplace transform $F$.

    At other times $f(t) \approx \tfrac1t\,\mathrm{Re}\sum_kw_kF(z_k/t)$; a function of two times takes the double sum.
    The points lie on Talbot's contour around the negative real axis; $F$ must be analytic elsewhere and real on the
    positive axis, as transforms of relaxing functions are.

    **Arguments:**

    - `nodes`: how many points; even. Errors are near 1e-11 with the default; more than 40 lose digits to cancellation.

    **Returns:**

    `(points, weights)`, both complex128.

    **Raises:**

    `ValueError` for an odd or too small number of nodes, and without `jax_enable_x64`: single precision leaves no
    digits.
    """
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "`jax_enable_x64` must be on to invert Laplace transforms, which single precision leaves no digits of; call "
            'jax.config.update("jax_enable_x64", True) first.'
        )
    if nodes < 2 or nodes % 2:
        raise ValueError(f"`nodes` must be even and at least 2; got {nodes}.")
    angle = np.pi * (2 * np.arange(nodes) + 1 - nodes) / nodes
    slow = 0.6407 * angle
    contour = nodes * (0.5017 * angle / np.tan(slow) - 0.6122 + 0.2645j * angle)
    speed = 0.5017 / np.tan(slow) - 0.5017 * slow / np.sin(slow) ** 2 + 0.2645j
    return jnp.asarray(contour), jnp.asarray(np.exp(contour) * speed / 1j)
