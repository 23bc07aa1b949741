"""Several linear regressions in one prompt, each of which depends on some of the inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_count, check_matrix, check_positive, require, standard_normal


class MultiTaskRegression(AbstractSampledTask):
    r"""Half the squared error of the answers to a query, summed over $T$ regressions whose labels share the prompt.

    In every prompt there are new weights $w_n\sim\mathcal N(0, \tfrac{P_n}{d_n}I)$ on the $d_n$ inputs of task $n$, its
    *support*; inputs $x_l, x_q\sim\mathcal N(0, I)$; and labels $y_{ln} = w_n\cdot x_l + \sigma\zeta_{ln}$, all in the
    token of their example. The answers have no noise. Supports may overlap. The loss is

    $$L = \tfrac12\sum_n\mathbb E\,(\hat y_n - w_n\cdot x_q)^2,$$

    known for softmax heads in the limit of many inputs (`MultiTaskHeadsTask`), and otherwise sampled.

    **Arguments:**

    - `supports`: which inputs each task depends on, ones and zeros, shape `(tasks, inputs)`.
    - `length`: $L \ge 1$, the number of examples in a prompt.
    - `powers`: $P_n > 0$, the variance of a label without its noise, shape `(tasks,)` or one for all.
    - `noise_variance`: $\sigma^2 \ge 0$.

    **Raises:**

    `ValueError` for supports that are empty or not of ones and zeros, an empty prompt, or powers that are not positive.
    """

    supports: Float[Array, "tasks inputs"]
    powers: Float[Array, " tasks"]
    noise_variance: Float[Array, ""]
    length: int = eqx.field(static=True)

    def __init__(self, supports: ArrayLike, length: int, *, powers: ArrayLike = 1.0, noise_variance: ArrayLike = 0.0):
        supports = check_matrix("supports", supports)
        binary = jnp.all((supports == 0) | (supports == 1)) & jnp.all(jnp.sum(supports, axis=1) > 0)
        message = "`supports` must be of ones and zeros, with a one for every task."
        self.supports = require(supports, binary, message)
        self.length = check_count("length", length)
        powers = check_positive("powers", powers).astype(supports.dtype)
        if powers.ndim > 1 or powers.size not in (1, self.tasks):
            raise ValueError(f"`powers` must be one number, or one for each of {self.tasks} tasks; got {powers.shape}.")
        self.powers = jnp.broadcast_to(powers, (self.tasks,))
        self.noise_variance = check_positive("noise_variance", noise_variance, zero=True, scalar=True).astype(
            supports.dtype
        )

    @property
    def tasks(self) -> int:
        """The number of tasks, $T$."""
        return self.supports.shape[0]

    @property
    def inputs(self) -> int:
        """The number of inputs, $d$."""
        return self.supports.shape[1]

    @property
    def sizes(self) -> Float[Array, " tasks"]:
        """$d_n$, the number of inputs of each task."""
        return jnp.sum(self.supports, axis=1)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Not known exactly for any network: raises."""
        raise ValueError(
            f"`task` has no closed form of its loss for `model`, {type(model).__name__}. For MultiTaskHeads in the limit "
            "of many inputs there is MultiTaskHeadsTask(task); sample it with tx.GradientDescent(..., batch_size=...)."
        )

    def sample(
        self, key: PRNGKeyArray, batch: int
    ) -> tuple[Float[Array, "batch width tokens"], Float[Array, "batch tasks"]]:
        """Prompts, and the answers to their queries."""
        dtype = self.supports.dtype
        inputs_key, weights_key, noise_key = jax.random.split(key, 3)
        inputs = standard_normal(inputs_key, (batch, self.length + 1, self.inputs), dtype)
        scale = self.supports * jnp.sqrt(self.powers / self.sizes)[:, None]
        weights = standard_normal(weights_key, (batch, *scale.shape), dtype) * scale[None]
        answers = jnp.einsum("bli,bti->blt", inputs, weights)
        noise = jnp.sqrt(self.noise_variance) * standard_normal(noise_key, answers.shape, dtype)
        labels = (answers + noise).at[:, -1].set(0.0)
        return jnp.swapaxes(jnp.concatenate([inputs, labels], axis=2), 1, 2), answers[:, -1]

    def batch_loss(
        self, model: PyTree, batch: tuple[Float[Array, "batch width tokens"], Float[Array, "batch tasks"]]
    ) -> Float[Array, ""]:
        """Half the squared error, summed over tasks and averaged over the batch."""
        prompts, answers = batch
        return jnp.mean(jnp.sum((jax.vmap(model)(prompts) - answers) ** 2, axis=1)) / 2
