"""The loss that one step of a rule sees."""

from collections.abc import Callable

from jaxtyping import Array, PRNGKeyArray, PyTree

from ...core import AbstractFiniteTask, AbstractSampledTask, Objective, check_count, check_key


def check_batch_size(batch_size: PyTree) -> int | None:
    """A number of examples, or `None` for the full loss."""
    return None if batch_size is None else check_count("batch_size", batch_size)


def loss_seen(objective: Objective, batch_size: int | None, key: PRNGKeyArray | None) -> Callable[[PyTree], Array]:
    """The full loss as a function of the parameters, or that of a batch drawn afresh."""
    if batch_size is None:
        return objective.loss
    batch = draw_batch(objective, batch_size, key)[1]
    return lambda params: objective.batch_loss(params, batch)


def draw_batch(objective: Objective, batch_size: int, key: PRNGKeyArray | None) -> tuple[AbstractSampledTask, PyTree]:
    """A task that can be sampled, and a batch of it."""
    check_key(key)
    task = objective.task
    if not isinstance(task, AbstractSampledTask):
        raise ValueError(
            f"`batch_size` needs a task that can be sampled (tx.AbstractSampledTask); got {type(task).__name__}."
        )
    if isinstance(task, AbstractFiniteTask) and batch_size > task.examples:
        raise ValueError(f"`batch_size` must be at most {task.examples}, the examples of the task; got {batch_size}.")
    return task, task.sample(key, batch_size)
