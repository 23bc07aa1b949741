"""A tensor of rank one, learned factor by factor: three subcircuits that need each other."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractTask, check_key, check_matrix, check_positive, check_sizes, require
from ..rules import GradientFlow

FACTORS = ("a", "b", "c")


class RankOneTensor(eqx.Module):
    r"""The tensor $a\otimes b\otimes c$.

    **Arguments:**

    - `a`, `b`, `c`: the factors, shapes `(n_a,)`, `(n_b,)`, `(n_c,)`.

    **Raises:**

    `ValueError` for shapes that are no vectors or numbers that are not finite.
    """

    a: Float[Array, " n_a"]
    b: Float[Array, " n_b"]
    c: Float[Array, " n_c"]

    def __init__(self, a: ArrayLike, b: ArrayLike, c: ArrayLike):
        self.a = check_matrix("a", a, (None,))
        self.b = check_matrix("b", b, (None,)).astype(self.a.dtype)
        self.c = check_matrix("c", c, (None,)).astype(self.a.dtype)

    @property
    def factors(self) -> tuple[Float[Array, " n_a"], Float[Array, " n_b"], Float[Array, " n_c"]]:
        """`(a, b, c)`."""
        return self.a, self.b, self.c

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The lengths of the factors."""
        return self.a.shape[-1], self.b.shape[-1], self.c.shape[-1]

    def __call__(self) -> Float[Array, "n_a n_b n_c"]:
        """The tensor. There is no input."""
        return self.a[:, None, None] * self.b[None, :, None] * self.c[None, None, :]


class RankOneTensorTask(AbstractTask):
    r"""Half the mean squared difference to a true tensor $a^*\otimes b^*\otimes c^*$ of rank one.

    $$L = \frac1{2n}\sum_{ijk}\big(a^*_ib^*_jc^*_k - a_ib_jc_k\big)^2,\qquad n = n_an_bn_c.$$

    **Arguments:**

    - `truth`: the true factors, none of them zero.

    **Raises:**

    `ValueError` if `truth` is no `RankOneTensor`, or one of its factors vanishes.
    """

    truth: RankOneTensor

    def __init__(self, truth: PyTree):
        if not isinstance(truth, RankOneTensor):
            raise ValueError(f"`truth` must be a RankOneTensor; got {type(truth).__name__}.")
        for name, factor in zip(FACTORS, truth.factors, strict=True):
            truth = require(truth, jnp.any(factor != 0), f"`truth` must have no factor of zero; its `{name}` is.")
        self.truth = truth

    @property
    def entries(self) -> int:
        """$n$, the number of entries of the tensor."""
        return self.truth.a.shape[0] * self.truth.b.shape[0] * self.truth.c.shape[0]

    @property
    def strength(self) -> Float[Array, ""]:
        r"""$S = \lVert a^*\rVert\lVert b^*\rVert\lVert c^*\rVert$."""
        a, b, c = (jnp.linalg.norm(factor) for factor in self.truth.factors)
        return a * b * c

    def loss(self, model: RankOneTensor) -> Float[Array, ""]:
        """The loss, from all entries."""
        return jnp.mean((model() - self.truth()) ** 2) / 2


def gaussian_tensor(sizes: PyTree[int], *, scale: ArrayLike, key: PRNGKeyArray) -> RankOneTensor:
    """Factors with independent Gaussian entries.

    **Arguments:**

    - `sizes`: the lengths of the three factors, a tuple.
    - `scale`: the standard deviation of an entry, positive.
    - `key`: for the draw.
    """
    check_key(key)
    if not isinstance(sizes, tuple) or len(sizes) != 3:
        raise ValueError(f"`sizes` must be a tuple of three whole numbers; got {sizes!r}.")
    check_sizes(**{f"sizes[{i}]": size for i, size in enumerate(sizes)})
    scale = check_positive("scale", scale, scalar=True)
    keys = jax.random.split(key, 3)
    draws = (scale * jax.random.normal(k, (n,), scale.dtype) for k, n in zip(keys, sizes, strict=True))
    return RankOneTensor(*draws)


def clamp_factors(
    model: PyTree, task: PyTree, factors: str, *, time_constant: ArrayLike = 1.0
) -> tuple[RankOneTensor, GradientFlow]:
    """Sets some factors to the truth and keeps them there, as if these subcircuits had been learned before.

    **Arguments:**

    - `model`: a `RankOneTensor`.
    - `task`: a `RankOneTensorTask` of the same sizes.
    - `factors`: the names of the clamped ones, such as `"c"` or `"bc"`; `""` clamps none.
    - `time_constant`: of the flow.

    **Returns:**

    The network with true values for these factors, and the rule that trains the others: gradient flow whose rates are
    zero for what is clamped. Any other `rates`, and any other frozen values, are as good for `RankOneTensorFlow` and
    `ClampedTensor`.

    **Raises:**

    `ValueError` for factors that do not exist, or a network that does not fit the task.
    """
    model = check_tensor(model, task)
    if len(set(factors)) != len(factors) or not set(factors) <= set(FACTORS):
        raise ValueError(f"`factors` must name some of a, b, c once each, such as 'bc'; got {factors!r}.")
    true = {name: getattr(task.truth, name) for name in factors}
    rates = jnp.asarray([0.0 if name in factors else 1.0 for name in FACTORS], model.a.dtype)
    clamped = RankOneTensor(**{name: true.get(name, getattr(model, name)) for name in FACTORS})
    return clamped, GradientFlow(time_constant, rates=rates)


def check_tensor(model: PyTree, task: PyTree) -> RankOneTensor:
    """The model, if it fits the task."""
    if not isinstance(task, RankOneTensorTask):
        raise ValueError(f"`task` must be a RankOneTensorTask; got {type(task).__name__}.")
    if not isinstance(model, RankOneTensor):
        raise ValueError(f"`model` must be a RankOneTensor; got {type(model).__name__}.")
    if model.sizes != task.truth.sizes:
        raise ValueError(f"`model` must have factors of sizes {task.truth.sizes} to fit `task`; got {model.sizes}.")
    return model
