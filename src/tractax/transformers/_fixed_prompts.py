"""A finite sample of prompts, for models whose average over all prompts is not known."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ..core import AbstractFiniteTask, check_key, check_matrix
from ._in_context_regression import InContextRegression


class FixedPrompts(AbstractFiniteTask):
    r"""Half the squared error, averaged over given prompts; any network that answers a prompt, trained by any rule.

    Softmax attention has no loss in closed form that gradient flow could follow; on a fixed sample it has one.
    `FixedPrompts.draw(task, key, 500)` draws it from an `InContextRegression`.

    **Arguments:**

    - `prompts`: shape `(prompts, width, tokens)`, columns are tokens and the last one is the query.
    - `answers`: shape `(prompts,)`.

    **Raises:**

    `ValueError` for shapes that do not fit or numbers that are not finite.
    """

    prompts: Float[Array, "prompts width tokens"]
    answers: Float[Array, " prompts"]

    def __init__(self, prompts: ArrayLike, answers: ArrayLike):
        self.prompts = check_matrix("prompts", prompts, (None, None, None))
        self.answers = check_matrix("answers", answers, self.prompts.shape[:1]).astype(self.prompts.dtype)

    @classmethod
    def draw(cls, task: Any, key: PRNGKeyArray, prompts: int) -> "FixedPrompts":
        """Prompts of a task, with the answers to their queries (which have no noise)."""
        check_key(key)
        if not isinstance(task, InContextRegression):
            raise ValueError(f"`task` must be an InContextRegression; got {type(task).__name__}.")
        return cls(*task.sample(key, prompts))

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Half the mean squared error of the answers."""
        return jnp.mean((jax.vmap(model)(self.prompts) - self.answers) ** 2) / 2

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.answers.size

    def batch_loss(self, model: PyTree, batch: Int[Array, " batch"]) -> Float[Array, ""]:
        """Half the mean squared error on the prompts with these numbers."""
        return jnp.mean((jax.vmap(model)(self.prompts[batch]) - self.answers[batch]) ** 2) / 2
