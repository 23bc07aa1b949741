r"""Online learning of soft committee machines: the overlaps of the weights obey ordinary differential equations.

Set-up. Inputs $x\sim\mathcal N(0, I_N)$, fresh at every step. Student $\sum_k v_k\,g(w_k\cdot x/\sqrt N)$, teacher
$\sum_m v^*_m\,g(w^*_m\cdot x/\sqrt N) + \sigma\zeta$; loss $\tfrac12\Delta^2$ with $\Delta$ the student's minus the
teacher's answer. Steps of `OnlineSGD`; time is steps$/N$; $N\to\infty$ at fixed numbers of hidden units and fixed rates.

Theory. Let $C$ be the covariance of all fields, made of $Q_{ik} = w_i\cdot w_k/N$, $R_{in} = w_i\cdot w^*_n/N$ and
$T_{nm} = w^*_n\cdot w^*_m/N$, and $s = (v, -v^*)$. With the averages $I_2, I_3, I_4, J_2$ over Gaussian fields
(`tx.analysis.AbstractActivation`) and $A_{ib} = -\eta_w v_i\sum_c s_c I_3(i,b,c)$,

$$\dot R_{in} = A_{in},\qquad \dot v_i = -\eta_v\sum_c s_c I_2(i,c),$$
$$\dot Q_{ik} = A_{ik} + A_{ki} + \tfrac{\eta_w^2}{B}v_iv_k\Big[\sum_{cd}s_cs_dI_4(i,k,c,d) + \sigma^2J_2(i,k)\Big],$$

and the generalisation error is $\tfrac12 s^\top I_2 s$. A simulation of size $N$ scatters around this by $N^{-1/2}$, its
mean is off by $1/N$.

Source: Saad and Solla 1995, Phys. Rev. E 52, 4225; Biehl and Schwarze 1995; Riegler and Biehl 1995 (second layer);
Goldt et al. 2019, arXiv 1906.08632 (noise, unequal numbers of units).
"""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractReducedFlow, AbstractRule, AbstractTask, Assumption, FlowPath, Kind, enforce, integrate_flow
from ._committee import SoftCommittee
from ._committee_task import CommitteeTask, check_committee, error_from_overlaps
from ._online_sgd import OnlineSGD


class Overlaps(eqx.Module):
    """The order parameters of a student.

    **Attributes:**

    - `student`: $Q$, overlaps of the student's units with each other, shape `(student, student)`.
    - `cross`: $R$, with the teacher's units, shape `(student, teacher)`.
    - `readout`: $v$, shape `(student,)`.
    """

    student: Float[Array, "*times student student"]
    cross: Float[Array, "*times student teacher"]
    readout: Float[Array, "*times student"]


class SoftCommitteeFlow(AbstractReducedFlow[Overlaps]):
    """The overlaps of a soft committee machine over time, in the limit of many inputs.

    Build it with `from_model`; where there are only overlaps and no networks, `committees` makes networks that have them.
    Time is steps$/N$.

    **Attributes:**

    - `path`: the integrated overlaps.
    - `teacher_overlaps`: $T$, shape `(teacher, teacher)`.
    - `task`, `rule`: the case.
    """

    path: FlowPath
    teacher_overlaps: Float[Array, "teacher teacher"]
    task: CommitteeTask
    rule: OnlineSGD
    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: AbstractTask,
        rule: AbstractRule,
        *,
        t1: ArrayLike,
        check: bool = True,
        solver: diffrax.AbstractSolver | None = None,
        stepsize_controller: diffrax.AbstractStepSizeController | None = None,
        max_steps: int = 4096,
    ) -> "SoftCommitteeFlow":
        """Integrates the overlaps of a network up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: the case.
        - `t1`: the horizon, in steps$/N$.
        - `check`: whether to refuse a rule with another size than the model's.
        - `solver`, `stepsize_controller`, `max_steps`: of the integration, as in `diffrax.diffeqsolve`; `None` for
          Dopri8 with tight tolerances.

        **Raises:**

        `ValueError` if the model is no `SoftCommittee` that fits the task, or the rule no `OnlineSGD`; if a step does
        not take the time $1/N$; if the integration fails, as it does where the learning rate makes the weights diverge.
        """
        model, task, rule = _check_case(model, task, rule)
        rule = enforce(rule, cls.__name__, (rule.time_assumption(task.size),)) if check else rule
        teacher_overlaps = _gram(task.teacher, task.teacher)
        field = eqx.Partial(_velocity, teacher_overlaps, task, rule)
        options = {"solver": solver, "stepsize_controller": stepsize_controller, "max_steps": max_steps}
        path = integrate_flow(field, _overlaps(model, task.teacher), t1, **options)
        return cls(path, teacher_overlaps, task, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """A step must take the time 1/N; any start, readout and number of units is covered."""
        _, task, rule = _check_case(model, task, rule)
        return (rule.time_assumption(task.size),)

    def vector_field(self, t: Float[Array, ""], state: Overlaps) -> Overlaps:
        """The flow of the overlaps."""
        return _velocity(self.teacher_overlaps, self.task, self.rule, t, state)

    def reduce(self, model: SoftCommittee) -> Overlaps:
        """The overlaps of a network with itself and the teacher."""
        return _overlaps(check_committee(model, self.task), self.task.teacher)

    def error_of(self, state: Overlaps) -> Float[Array, ""]:
        """The generalisation error, half the mean squared distance to the noiseless teacher, in a given state."""
        covariance, signs = _fields(self.teacher_overlaps, self.task, state)
        return error_from_overlaps(self.task.teacher, signs, covariance)

    def generalisation_error(self, t: ArrayLike) -> Float[Array, ""]:
        """The generalisation error at one time."""
        return self.error_of(self.evaluate(t))


def _check_case(model: Any, task: Any, rule: Any) -> tuple[SoftCommittee, CommitteeTask, OnlineSGD]:
    if not isinstance(rule, OnlineSGD):
        raise ValueError(f"`rule` must be OnlineSGD for SoftCommitteeFlow; got {type(rule).__name__}.")
    return check_committee(model, task), task, rule


def _gram(a: SoftCommittee, b: SoftCommittee) -> Array:
    return a.weights @ b.weights.T / a.weights.shape[1]


def _overlaps(model: SoftCommittee, teacher: SoftCommittee) -> Overlaps:
    return Overlaps(_gram(model, model), _gram(model, teacher), model.readout)


def _fields(teacher_overlaps: Array, task: CommitteeTask, state: Overlaps) -> tuple[Array, Array]:
    """The covariance C of all fields, students first, and their signs s."""
    covariance = jnp.block([[state.student, state.cross], [state.cross.T, teacher_overlaps]])
    return covariance, jnp.concatenate([state.readout, -task.teacher.readout])


def _velocity(teacher_overlaps: Array, task: CommitteeTask, rule: OnlineSGD, t: Any, state: Overlaps) -> Overlaps:
    del t
    g = task.teacher.activation
    covariance, s = _fields(teacher_overlaps, task, state)
    dtype = covariance.dtype
    eta_w, eta_v = rule.learning_rate.astype(dtype), rule.readout_rate.astype(dtype)
    noise_scale = task.noise_scale.astype(dtype)
    hidden, v = state.cross.shape[0], state.readout
    pairs = np.arange(hidden)[:, None], np.arange(s.shape[0])[None, :]
    slopes, curvature = g.slopes(covariance, *pairs), g.curvature(covariance, *pairs)
    # I3 summed over c, of which only these two averages of pairs depend on the activation.
    drift = -eta_w * v[:, None] * ((curvature @ s)[:, None] * covariance[:hidden] + slopes * s[None, :] @ covariance)
    # The average over fresh examples of products of two updates.
    spread = g.diffusion_of_sum(covariance, s, hidden) + noise_scale**2 * slopes[:, :hidden]
    to_student = drift[:, :hidden]
    student = to_student + to_student.T + eta_w**2 / rule.batch_size * v[:, None] * v[None, :] * spread
    return Overlaps(student, drift[:, hidden:], -eta_v * (g.pair(covariance, *pairs) @ s))
