r"""What is known in closed form about soft committee machines with the error function as activation.

A student of $K$ units and a teacher of $M$, all readouts one, orthonormal teacher units, only the first layer trained.
The unspecialised plateau ($K = M$, $\eta\to0$, no noise): every unit of the student imitates every unit of the teacher
equally well, until small differences have grown. The noise floor: with noisy answers and a fixed rate, weights keep
fluctuating after learning.

Source: Saad and Solla 1995, Phys. Rev. E 52, 4225 (plateau); Goldt et al. 2019, arXiv 1906.08632 (noise floor). The
closed form of the rate of specialisation is derived here.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..core import check_count, check_positive
from ._soft_committee_flow import Overlaps


def symmetric_plateau(units: int) -> tuple[Overlaps, Float[Array, ""]]:
    r"""The unspecialised fixed point of $K = M$ units at small learning rate, and its generalisation error.

    $Q_{ik} = 1/(2K-1)$, $R_{in} = 1/\sqrt{K(2K-1)}$, $\epsilon = \tfrac K\pi(\tfrac\pi6 - K\arcsin\tfrac1{2K})$.

    **Arguments:**

    - `units`: $K$, at least 1.

    **Returns:**

    `(overlaps, generalisation error)`.

    **Raises:**

    `ValueError` if there are no units.
    """
    units = check_count("units", units)
    ones = jnp.ones((units, units))
    overlaps = Overlaps(ones / (2 * units - 1), ones / (units * (2 * units - 1)) ** 0.5, jnp.ones(units))
    return overlaps, jnp.asarray(units / np.pi * (np.pi / 6 - units * np.arcsin(1 / (2 * units))))


def specialisation_rate(units: int, learning_rate: ArrayLike = 1.0) -> Float[Array, ""]:
    r"""The rate at which units of $K = M$ grow apart on the plateau, at small learning rate.

    $\lambda = \tfrac{2\eta}\pi\,K\,(2K+1)^{-3/2}(2K-1)^{-1/2}$, for all differences of $R$ without a mean over students
    or over teachers; $Q$ has no part in them. From differences of size $\delta$ the plateau lasts for about
    $\ln(1/\delta)/\lambda$.

    **Arguments:**

    - `units`: $K$, at least 2.
    - `learning_rate`: $\eta$, small.

    **Raises:**

    `ValueError` for a single unit, which has nothing to specialise in.
    """
    units = check_count("units", units, least=2)
    eta = check_positive("learning_rate", learning_rate)
    return 2 * eta / np.pi * units / ((2 * units + 1) ** 1.5 * (2 * units - 1) ** 0.5)


def noise_floor(learning_rate: ArrayLike, noise_scale: ArrayLike, *, student: int, teacher: int) -> Float[Array, ""]:
    r"""The generalisation error at which a student with surplus units settles, to first order in the learning rate.

    $\epsilon_\infty = \tfrac{\eta\sigma^2}{2\pi}\big(L + M/\sqrt3\big)$ with $L = K - M$ surplus units, whose weights
    vanish: every unit that is not needed adds noise. For $L \ge 2$ it is a plateau that lasts for a time of order
    $(\eta\sigma)^{-2}$ and is reached from small surplus weights only.

    **Arguments:**

    - `learning_rate`: $\eta$, small.
    - `noise_scale`: $\sigma$, of the label noise.
    - `student`, `teacher`: $K \ge M \ge 1$, the numbers of units.

    **Raises:**

    `ValueError` if the student has fewer units than the teacher, or the teacher none.
    """
    if check_count("student", student) < check_count("teacher", teacher):
        raise ValueError(f"`student` must be at least `teacher`; got {student} and {teacher}.")
    eta = check_positive("learning_rate", learning_rate)
    sigma = check_positive("noise_scale", noise_scale, zero=True)
    return eta * sigma**2 / (2 * np.pi) * (student - teacher + teacher / 3**0.5)
