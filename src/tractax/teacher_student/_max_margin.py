"""The linear classifier of largest margin."""

from jaxtyping import PyTree

from ..analysis import MaxMargin, largest_margin
from ._classification_task import ClassificationTask


def max_margin(task: PyTree) -> MaxMargin:
    r"""The direction in which all examples of a data set are right by the largest margin, `tx.analysis.largest_margin`
    of $z_i = y_ix_i$.

    **Arguments:**

    - `task`: a `ClassificationTask`.
    """
    return largest_margin(check_classification(task).signed_inputs)


def check_classification(task: PyTree) -> ClassificationTask:
    """The task, if it is a data set of two classes."""
    if not isinstance(task, ClassificationTask):
        raise ValueError(f"`task` must be a ClassificationTask; got {type(task).__name__}.")
    return task
