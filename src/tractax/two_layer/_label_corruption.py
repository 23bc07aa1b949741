"""Wrong labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int, PRNGKeyArray, PyTree

from ..core import check_count, check_indices, check_key, check_positive, require


def corrupt_labels(
    labels: PyTree, classes: int, fraction: ArrayLike, *, key: PRNGKeyArray | None
) -> tuple[Int[Array, " examples"], Bool[Array, " examples"]]:
    r"""Labels of which a fraction $\xi$, to the nearest whole number of examples, are wrong.

    The examples are drawn at random, and each gets one of the other classes, all alike; so that every label that is
    replaced is wrong.

    **Arguments:**

    - `labels`: whole numbers from 0, shape `(examples,)`.
    - `classes`: how many classes there are, at least 2.
    - `fraction`: $\xi$, from 0 to 1.
    - `key`: for the draw. With the same key, a larger fraction corrupts the same examples in the same way, and others.

    **Returns:**

    The labels, and which of them are wrong.

    **Raises:**

    `ValueError` for labels that are no classes, a single class, a fraction outside of [0, 1], or no key.
    """
    classes = check_count("classes", classes, least=2)
    labels = check_indices("labels", labels, below=classes)
    fraction = check_positive("fraction", fraction, zero=True, scalar=True)
    fraction = require(fraction, fraction <= 1, f"`fraction` must be at most 1; got {fraction}.")
    check_key(key)
    examples = labels.shape[0]
    order, shifts = jax.random.split(key)
    rank = jax.random.permutation(order, examples)
    wrong = rank < jnp.round(fraction * examples).astype(rank.dtype)
    shift = jax.random.randint(shifts, (examples,), 1, classes).astype(labels.dtype)
    return jnp.where(wrong, (labels + shift) % classes, labels), wrong
