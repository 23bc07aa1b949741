"""Learn a polynomial of second degree, from a few examples or from the whole population."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import AbstractTask, check_count, check_key, check_matrix, standard_normal
from ._polynomial_network import PolynomialNetwork, QuadraticPolynomial


class PolynomialTask(AbstractTask):
    r"""Mean squared error against a polynomial $y$, $L = \tfrac12\langle(f - y)^2\rangle$.

    The mean is over the training set, or over the population: normal inputs of covariance $I/D$.

    **Arguments:**

    - `target`: $y$, a `QuadraticPolynomial` such as `squared_projection(beta)`.
    - `inputs`: the training set, one example a row, shape `(examples, in)`; `None` for the population.

    **Raises:**

    `ValueError` for another kind of target, wrong shapes, or NaN.
    """

    target: QuadraticPolynomial
    inputs: Float[Array, "examples in"] | None

    def __init__(self, target: PyTree, inputs: PyTree = None):
        if not isinstance(target, QuadraticPolynomial):
            raise ValueError(
                f"`target` must be a QuadraticPolynomial, such as squared_projection(beta); got {type(target).__name__}."
            )
        linear = check_matrix("target.linear", target.linear, (None,))
        size, dtype = linear.shape[0], linear.dtype
        quadratic = check_matrix("target.quadratic", target.quadratic, (size, size)).astype(dtype)
        self.target = QuadraticPolynomial(linear, quadratic)
        self.inputs = None if inputs is None else check_matrix("inputs", inputs, (None, size)).astype(dtype)

    @classmethod
    def draw(cls, target: QuadraticPolynomial, examples: int, *, key: PRNGKeyArray | None) -> "PolynomialTask":
        """The task with a random training set from the population.

        **Arguments:**

        - `target`: as above.
        - `examples`: how many.
        - `key`: for the inputs.
        """
        check_key(key)
        examples = check_count("examples", examples)
        size, dtype = target.linear.shape[0], target.linear.dtype
        return cls(target, standard_normal(key, (examples, size), dtype) / size**0.5)

    def centred(self, model: PyTree) -> "PolynomialTask":
        """The task for which the outputs of `model`, the network before training, do not count.

        To fit $y$ by $f - f_0$ is to fit $y + f_0$ by $f$.
        """
        return PolynomialTask(self.target + _polynomial(model), self.inputs)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Half the mean squared error; over the population, of a `PolynomialNetwork` only."""
        if self.inputs is None:
            return self.test_error(_only_weights_trained(model)) / 2
        outputs = jax.vmap(model)(self.inputs)
        if outputs.size != self.inputs.shape[0]:
            raise ValueError(f"`model` must return one number for each example; got shape {outputs.shape[1:]}.")
        return jnp.mean((outputs.ravel() - jax.vmap(self.target)(self.inputs)) ** 2) / 2

    def test_error(self, model: PyTree) -> Float[Array, ""]:
        """The mean squared error of a `PolynomialNetwork` over the population, without a factor of one half."""
        return (_polynomial(model) - self.target).power

    def loss_of_polynomial(self, polynomial: QuadraticPolynomial) -> Float[Array, ""]:
        """The loss of whatever computes this polynomial."""
        error = polynomial - self.target
        if self.inputs is None:
            return error.power / 2
        return jnp.mean(jax.vmap(error)(self.inputs) ** 2) / 2


def _polynomial(model: PyTree) -> QuadraticPolynomial:
    if not isinstance(model, PolynomialNetwork):
        raise ValueError(f"`model` must be a PolynomialNetwork; got {type(model).__name__}.")
    return model.polynomial


def _only_weights_trained(model: PyTree) -> PyTree:
    """The same network, whose other numbers have no gradient."""
    if not isinstance(model, PolynomialNetwork):
        return model
    return eqx.tree_at(lambda m: (m.output_scale, m.curvature), model, replace_fn=jax.lax.stop_gradient)
