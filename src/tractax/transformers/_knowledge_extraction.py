r"""When fine-tuning on some questions lets a network answer all others: a stylised experiment.

Set-up. A `RecallTransformer` of even attention and small random weights learns all `Facts`, each stated in $K$ of its
templates, by gradient descent on the mean cross-entropy; then the questions about a fraction $b$ of the subjects. It is
scored on the questions about the other subjects, whose facts it knows from statements only. Time is that of gradient
flow, the learning rate times the number of steps.

What is found. Both phases are learned to perfection, always. What differs is whether questions reach the facts of
subjects that were not asked about: rarely if every fact was stated once, nearly always if it was stated in all
templates. Only then have the templates of a relation become one direction of the embedding, which a question can learn to
point in. With a single relation nothing is to be told apart, and the answer is right without any fine-tuning.

Kind: phenomenon. The experiment is in the spirit of Xu and Chen 2025, arXiv 2508.00901; its set-up was chosen here, and
the theorems of the paper are not used.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import check_key
from ..rules import GradientDescent
from ..training import train
from ._facts import Facts
from ._recall_transformer import LowRankRecall, RecallTransformer


class Extraction(eqx.Module):
    """How questions are answered before and after fine-tuning on those about some subjects.

    **Attributes:**

    - `before`, `after`: the share of right answers about the other subjects.
    - `tuned`: that about the subjects of fine-tuning, after it.
    - `surprise`: the mean cross-entropy of the right answers about the other subjects, after it.
    """

    before: Float[Array, ""]
    after: Float[Array, ""]
    tuned: Float[Array, ""]
    surprise: Float[Array, ""]


def learn_facts(
    facts: PyTree, multiplicity: int, *, width: int = 128, time: float = 2000.0, key: PRNGKeyArray
) -> RecallTransformer:
    """A network that was trained on statements.

    **Arguments:**

    - `facts`: `Facts`.
    - `multiplicity`: $K$, in how many templates each fact is stated.
    - `width`: of the hidden layer.
    - `time`: of training, with a learning rate of 2.
    - `key`: for the initial weights and the templates.

    **Raises:**

    `ValueError` for anything but `Facts`, or sizes that are not whole or too large.
    """
    check_key(key)
    _check(facts)
    weights, templates = jax.random.split(key)
    model = RecallTransformer.gaussian(facts.vocabulary, facts.choices, width, key=weights)
    return train(model, facts.statements(multiplicity, key=templates), GradientDescent(2.0), [time]).model


def extract_facts(
    model: PyTree,
    facts: PyTree,
    fraction: float,
    *,
    rank: int | None = None,
    time: float | None = None,
    key: PRNGKeyArray | None = None,
) -> Extraction:
    """Fine-tunes a network on the questions about the first subjects, and asks about the others.

    **Arguments:**

    - `model`: what `learn_facts` returned. `facts`: the same `Facts`.
    - `fraction`: $b$, of the subjects, between 0 and 1; at least one subject on both sides.
    - `rank`: `None` to train all weights, with a learning rate of 0.5; or the rank of a correction to the embedding which
      alone is trained (`LowRankRecall`), with one of 0.1.
    - `time`: of training; `None` for 250, or 100 with a rank.
    - `key`: for the initial correction, with a rank.

    **Raises:**

    `ValueError` for anything but `Facts`, a model that does not fit them, a fraction that leaves no subject, or a missing
    key.
    """
    _check(facts)
    _check_model(model, facts)
    asked = round(fraction * facts.subjects) if 0 < fraction < 1 else 0
    if not 0 < asked < facts.subjects:
        raise ValueError(f"`fraction` must leave some of the {facts.subjects} subjects on both sides; got {fraction}.")
    seen, others = facts.questions(0, asked), facts.questions(asked)
    if rank is None:
        start, rule, horizon = model, GradientDescent(0.5), 250.0
    else:
        check_key(key)
        start, rule, horizon = LowRankRecall.start(model, rank, key=key), GradientDescent(0.1), 100.0
    tuned = train(start, seen, rule, [horizon if time is None else time]).model
    scores = (others.accuracy(model), others.accuracy(tuned), seen.accuracy(tuned), others.loss(tuned))
    return Extraction(*(jnp.asarray(x) for x in scores))


def _check(facts: PyTree) -> None:
    if not isinstance(facts, Facts):
        raise ValueError(f"`facts` must be Facts; got {type(facts).__name__}.")


def _check_model(model: PyTree, facts: Facts) -> None:
    if not isinstance(model, RecallTransformer):
        raise ValueError(f"`model` must be a RecallTransformer; got {type(model).__name__}.")
    sizes = model.embedding.shape[0], model.readout.shape[1]
    if sizes != (facts.vocabulary, facts.choices):
        raise ValueError(
            f"`model` must know {facts.vocabulary} tokens and {facts.choices} choices to fit `facts`; got {sizes[0]} and "
            f"{sizes[1]}."
        )
