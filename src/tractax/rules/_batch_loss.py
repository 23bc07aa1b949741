"""The loss that one step of a rule sees."""

from collections.abc import Callable

from jaxtyping import Array, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, Objective, check_key


def check_batch_size(batch_size: PyTree) -> int | None:
    """A number of examples, or `None` for the full loss."""
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(
            f"`batch_size` must be a whole number of at least 1, or None for the full loss; got {batch_size}."
        )
    return batch_size


def loss_seen(objective: Objective, batch_size: int | None, key: PRNGKeyArray | None) -> Callable[[PyTree], Array]:
    """The full loss as a function of the parameters, or that of a batch drawn afresh."""
    if batch_size is None:
        return objective.loss
    batch = draw_batch(objective, batch_size, key)
    task = objective.task
    assert isinstance(task, AbstractSampledTask)
    return lambda params: task.batch_loss(objective.model(params), batch)


def draw_batch(objective: Objective, batch_size: int, key: PRNGKeyArray | None) -> PyTree:
    """A batch of a task that can be sampled."""
    check_key(key)
    if not isinstance(objective.task, AbstractSampledTask):
        raise ValueError(
            "`batch_size` needs a task that can be sampled (tx.AbstractSampledTask); got "
            f"{type(objective.task).__name__}."
        )
    return objective.task.sample(key, batch_size)
