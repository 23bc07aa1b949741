r"""Interacting subcircuits: learning a tensor of rank one is a flow of six numbers.

Set-up. `RankOneTensor`, a toy of circuits such as induction heads whose parts are useless without each other: the output
is the product of three factors. Loss `RankOneTensorTask`, $L = \tfrac1{2n}\lVert a^*\otimes b^*\otimes c^* - a\otimes
b\otimes c\rVert^2$, gradient flow $\tau\dot x = -r_x\,\partial_xL$. A factor with $r_x = 0$ is clamped.

Theory. With $m_x$ the component of a factor along the true one, $q_x$ the norm of the rest, whose direction stays, $N_x =
m_x^2 + q_x^2$ and $S = \lVert a^*\rVert\lVert b^*\rVert\lVert c^*\rVert$,

$$n\tau\,\dot m_a = r_a\,(S\,m_bm_c - m_aN_bN_c),\qquad n\tau\,\dot q_a = -r_a\,q_aN_bN_c,$$

and cyclically: exact, for any start. The loss is $(S^2 - 2S\,m_am_bm_c + N_aN_bN_c)/2n$; with equal rates differences of
the $N_x$ are conserved. At small weights the product $m_am_bm_c$ drives all three, at their common product's pace: a long
plateau. Where it is negative, the least of the three has to change its sign first.

Source: Singh, Moskovitz, Hill, Chan and Saxe 2024, arXiv 2404.07129, for the model; the reduction is derived here.
"""

from typing import ClassVar

import diffrax
import equinox as eqx
from jaxtyping import ArrayLike, PyTree

from ..core import AbstractReducedFlow, AbstractRule, FlowPath, Kind, integrate_flow
from ..rules import GradientFlow, check_flow
from ._rank_one_tensor import RankOneTensorTask, check_tensor
from ._tensor_overlaps import AbstractTensorSolution, TensorOverlaps, factor_rates, overlap_velocity, overlaps


class RankOneTensorFlow(AbstractTensorSolution, AbstractReducedFlow[TensorOverlaps]):
    """Learning of a tensor of rank one from any start, at any rates of the factors, with or without weight decay.

    Build it with `from_model`. Time is in the rule's units (its `time_constant`). There is nothing that it assumes.

    **Attributes:**

    - `path`: the integrated overlaps.
    - `task`, `rule`: the case.
    """

    path: FlowPath
    task: RankOneTensorTask
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: PyTree,
        rule: AbstractRule | None = None,
        *,
        t1: ArrayLike,
        check: bool = True,
        solver: diffrax.AbstractSolver | None = None,
        stepsize_controller: diffrax.AbstractStepSizeController | None = None,
        max_steps: int = 4096,
    ) -> "RankOneTensorFlow":
        """Integrates the six overlaps up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: the case. `rule` defaults to `tx.GradientFlow()`; its `rates` may differ.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `check`: without effect; the theory has no assumptions.
        - `solver`, `stepsize_controller`, `max_steps`: of the integration, as in `diffrax.diffeqsolve`; `None` for
          Dopri8 with tight tolerances.

        **Raises:**

        `ValueError` if the network does not fit the task or the integration fails.
        """
        del check
        model, rule = check_tensor(model, task), check_flow(rule, cls.__name__, rates=True)
        state = overlaps(model, task)
        factor_rates(rule, state.along.dtype)
        field = eqx.Partial(overlap_velocity, task, rule)
        path = integrate_flow(
            field, state, t1, solver=solver, stepsize_controller=stepsize_controller, max_steps=max_steps
        )
        return cls(path, task, rule)
