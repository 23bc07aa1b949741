"""Mirror descent, of which exponentiated gradients are the best known case."""

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective, check_positive
from ..descent._batch_loss import check_batch_size, loss_seen
from ..descent._weight_decay import check_decay
from ._mirror_potential import AbstractMirrorPotential, check_potential


class MirrorDescent(AbstractStepRule[Float[Array, ""]]):
    r"""$\varphi'(\theta)\leftarrow\varphi'(\theta) - \eta\nabla L(\theta)$.

    With `Entropy()`, $\theta\leftarrow\theta\,e^{-\eta\nabla L}$: exponentiated gradients. One step takes the flow time
    $\eta$ of `MirrorFlow`.

    **Arguments:**

    - `learning_rate`: $\eta > 0$; may be an array under `vmap`.
    - `potential`: $\varphi$.
    - `batch_size`: `None` for the full loss, or the number of examples drawn afresh at each step.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for a learning rate that is not positive, another kind of potential, an empty batch or a negative decay.
    """

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    potential: AbstractMirrorPotential
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        potential: PyTree,
        *,
        batch_size: PyTree = None,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.potential = check_potential(potential)
        self.batch_size = check_batch_size(batch_size)

    @property
    def time_per_step(self) -> Float[Array, ""]:
        r"""$\eta$."""
        return self.learning_rate

    @property
    def random(self) -> bool:
        """Whether a step draws a mini-batch."""
        return self.batch_size is not None

    def init(self, params: PyTree) -> Float[Array, ""]:
        """The learning rate of all steps, if the potential is defined for the parameters."""
        return self.potential.checked(params, self.learning_rate)

    def step(
        self, params: PyTree, state: Float[Array, ""], objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, Float[Array, ""]]:
        """One step."""
        gradient = jax.grad(loss_seen(objective.penalised(self.weight_decay), self.batch_size, key))(params)

        def moved(w: Array, gradient: Array) -> Array:
            return self.potential.moved(w, -state.astype(w.dtype) * gradient)

        return jax.tree.map(moved, params, gradient), state
