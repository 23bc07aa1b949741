"""Facts about subjects, stated in many templates and asked for in questions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ..core import AbstractFiniteTask, check_count, check_indices, check_key, check_sizes


class RecallTask(AbstractFiniteTask):
    """The mean cross-entropy of the answers to prompts, in nats; for any network from tokens to logits.

    Mini-batches are drawn with replacement.

    **Arguments:**

    - `prompts`: tokens, shape `(examples, tokens)`.
    - `answers`: the right choices, shape `(examples,)`.

    **Raises:**

    `ValueError` for arrays of other shapes, or that hold anything but whole numbers from 0.
    """

    prompts: Int[Array, "examples tokens"]
    answers: Int[Array, " examples"]

    def __init__(self, prompts: PyTree, answers: PyTree):
        self.prompts, self.answers = check_indices("prompts", prompts, 2), check_indices("answers", answers)
        if self.answers.shape != self.prompts.shape[:1]:
            raise ValueError(
                f"`answers` must be as many as the {self.prompts.shape[0]} prompts; got {self.answers.shape[0]}."
            )

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The mean over all prompts."""
        return _cross_entropy(model, self.prompts, self.answers)

    def accuracy(self, model: PyTree) -> Float[Array, ""]:
        """The share of prompts whose answer has the largest logit."""
        logits = jax.vmap(model)(self.prompts)
        return jnp.mean(jnp.argmax(logits, axis=1) == self.answers, dtype=logits.dtype)

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.answers.shape[0]

    def batch_loss(self, model: PyTree, batch: Int[Array, " batch"]) -> Float[Array, ""]:
        """The mean over the prompts with these numbers."""
        return _cross_entropy(model, self.prompts[batch], self.answers[batch])


def _cross_entropy(model: PyTree, prompts: Array, answers: Array) -> Array:
    logs = jax.nn.log_softmax(jax.vmap(model)(prompts), axis=1)
    return -jnp.mean(jnp.take_along_axis(logs, answers[:, None], axis=1))


class Facts(eqx.Module):
    """What is true: an answer for each subject and relation (say: a person; born in, works for, ...).

    Tokens are the subjects, then the templates of each relation, then one question for each relation. A statement is
    `(subject, template)`, a question `(subject, question)`, and the answer to both is that of subject and relation.

    **Arguments:**

    - `answers`: shape `(subjects, relations)`, from 0 to `choices - 1`.
    - `choices`: the number of possible answers.
    - `templates`: how many each relation has.

    **Raises:**

    `ValueError` for answers that are no table of choices, or sizes below one.
    """

    answers: Int[Array, "subjects relations"]
    choices: int = eqx.field(static=True)
    templates: int = eqx.field(static=True)

    def __init__(self, answers: PyTree, *, choices: int, templates: int):
        check_sizes(choices=choices, templates=templates)
        self.answers = check_indices("answers", answers, 2, below=choices)
        self.choices, self.templates = choices, templates

    @classmethod
    def draw(
        cls, subjects: int = 40, relations: int = 3, *, choices: int = 10, templates: int = 6, key: PRNGKeyArray
    ) -> "Facts":
        """Independent uniform answers."""
        check_key(key)
        check_sizes(subjects=subjects, relations=relations, choices=choices)
        answers = jax.random.randint(key, (subjects, relations), 0, choices)
        return cls(answers, choices=choices, templates=templates)

    @property
    def subjects(self) -> int:
        """The number of subjects."""
        return self.answers.shape[0]

    @property
    def relations(self) -> int:
        """The number of relations."""
        return self.answers.shape[1]

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return self.subjects + self.relations * (self.templates + 1)

    def statements(self, multiplicity: int, *, key: PRNGKeyArray) -> RecallTask:
        """Every fact, stated in as many of its templates, drawn without replacement for each fact."""
        check_key(key)
        check_sizes(multiplicity=multiplicity)
        if multiplicity > self.templates:
            raise ValueError(f"`multiplicity` must be at most the {self.templates} templates; got {multiplicity}.")
        shape = (self.subjects, self.relations)
        order = jnp.argsort(jax.random.uniform(key, (*shape, self.templates)), axis=2)[:, :, :multiplicity]
        first = self.subjects + self.templates * jnp.arange(self.relations)
        return self._task(order + first[None, :, None], 0)

    def questions(self, start: int = 0, stop: int | None = None) -> RecallTask:
        """The questions about the subjects from `start` to before `stop`, by default all."""
        start, stop = check_count("start", start, least=0), self.subjects if stop is None else check_count("stop", stop)
        if not start < stop <= self.subjects:
            raise ValueError(f"`start` and `stop` must span some of the {self.subjects} subjects; got {start}, {stop}.")
        first = self.subjects + self.templates * self.relations
        tokens = jnp.broadcast_to(first + jnp.arange(self.relations), (stop - start, self.relations))
        return self._task(tokens[:, :, None], start)

    def _task(self, last: Int[Array, "some relations repeats"], start: int) -> RecallTask:
        """Prompts that end in these tokens, about the subjects from `start`."""
        subjects = jnp.broadcast_to((start + jnp.arange(last.shape[0]))[:, None, None], last.shape)
        answers = jnp.broadcast_to(self.answers[start : start + last.shape[0], :, None], last.shape)
        return RecallTask(jnp.stack([jnp.ravel(subjects), jnp.ravel(last)], axis=1), jnp.ravel(answers))
