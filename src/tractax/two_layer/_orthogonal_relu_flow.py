r"""Rectifier networks on orthogonal inputs: the exact flow of the fields, in any input dimension.

Set-up. $f(x) = \sum_ja_j\sigma(w_j\cdot x)$ with $\sigma(z) = \max(z, 0)$ and $\sigma'(0) = 0$, $n$ examples with
$x_k\cdot x_l = 0$ for $k\ne l$ and squared norms $c_k$, loss $L = \tfrac1{2n}\sum_k(f(x_k) - y_k)^2$, gradient flow
$\tau\dot\theta = -\partial L$ from any weights.

Theory. The fields $z_{jk} = w_j\cdot x_k$ and the readout obey equations of their own,

$$\tau\dot z_{jk} = \tfrac{c_k}n\,a_j\,1[z_{jk} > 0]\,r_k,\qquad \tau\dot a_j = \tfrac1n\sum_kr_k\sigma(z_{jk}),\qquad
r_k = y_k - \sum_ja_j\sigma(z_{jk}):$$

$m(n + 1)$ numbers, however many inputs there are. A unit that becomes silent on an example ($z_{jk}$ falls to zero) stays
so for ever. $a_j^2 - \lVert w_j\rVert^2$ and the sign of a balanced $a_j$ are conserved.

Evaluation. The flow has a kink wherever a unit falls silent. A first integration finds these times as events; a second
one stops at each, so that every piece is smooth.

Source: Boursier, Pillaud-Vivien and Flammarion 2022, arXiv 2206.00939.
"""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    RESULTS,
    AbstractReducedFlow,
    AbstractRule,
    Assumption,
    FlowPath,
    Kind,
    check_positive,
    enforce,
    integrate_flow,
    require,
)
from ..deep_linear import RegressionTask
from ..rules import GradientFlow, no_weight_decay
from ._base import check_single_output, orthogonal_inputs, targets_of
from ._network import TwoLayerNetwork


class Fields(eqx.Module):
    """What a two-layer network with one output is, as far as given examples can tell.

    **Attributes:**

    - `fields`: $z_{jk} = w_j\\cdot x_k$, shape `(hidden, examples)`.
    - `readout`: $a_j$, shape `(hidden,)`.
    """

    fields: Float[Array, "*times hidden examples"]
    readout: Float[Array, "*times hidden"]


class OrthogonalReLUFlow(AbstractReducedFlow[Fields]):
    """Training of a rectifier network on orthogonal inputs, from any weights.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`).

    **Attributes:**

    - `path`: the integrated fields and readout.
    - `silent_from`: when each unit falls silent on each example, shape `(hidden, examples)`: 0 for those that are silent
      from the start, infinity for those that are active up to the horizon.
    - `initial`: the network at time zero.
    - `task`, `rule`: the case.
    """

    path: FlowPath
    silent_from: Float[Array, "hidden examples"]
    initial: TwoLayerNetwork
    task: RegressionTask
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
        max_steps: int = 2048,
    ) -> "OrthogonalReLUFlow":
        """Integrates the flow of a network's fields up to `t1`.

        **Arguments:**

        - `model`: a `TwoLayerNetwork` with rectifiers, one output and no bias.
        - `task`: a `RegressionTask` with orthogonal inputs; any norms, any targets.
        - `rule`: defaults to `tx.GradientFlow()`.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `check`: refuse what the theory does not cover.
        - `max_steps`: of each of the two integrations.

        **Raises:**

        `ValueError` for another kind of network, task or rule, inputs that are not orthogonal, weight decay, or an
        integration that fails.
        """
        model, task, rule = check_single_output(cls.__name__, model, task, rule)
        start = _fields(task, model)
        if check:
            start = enforce(start, cls.__name__, cls.assumptions(model, task, rule))
        t1 = check_positive("t1", t1, scalar=True).astype(start.readout.dtype)
        controller = _controller(start)
        # When units fall silent depends on the weights, but what follows is smooth in these times.
        fixed = jax.lax.stop_gradient((start, task, rule, t1))
        silent_from, result = _silencing(*fixed, controller, max_steps)
        message = f"The flow could not be integrated up to `t1` in {max_steps} steps; pass a larger `max_steps`."
        silent_from = require(silent_from, result == RESULTS.successful, message)
        field = eqx.Partial(_velocity_until, silent_from, task, rule)
        stops = diffrax.ClipStepSizeController(controller, jump_ts=jnp.ravel(silent_from))
        path = integrate_flow(field, start, t1, stepsize_controller=stops, max_steps=max_steps)
        return cls(path, silent_from, model, task, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        model, task, rule = check_single_output(cls.__name__, model, task, rule)
        return orthogonal_inputs(task), no_weight_decay(rule)

    def state(self, t: Float[Array, ""]) -> Fields:
        """The fields and the readout at time `t <= t1`."""
        state = super().state(t)
        start = self.initial.first @ self.task.inputs.T
        fallen = (start > 0) & (t.astype(start.dtype) >= self.silent_from)
        # Where a unit is active its field is positive, up to rounding.
        positive = jnp.where(fallen, 0.0, jnp.where(state.fields > 0, state.fields, 0.0))
        return Fields(jnp.where(start > 0, positive, start), state.readout)

    def vector_field(self, t: Any, state: Fields) -> Fields:
        """The flow of fields and readout."""
        del t
        return _velocity(state.fields > 0, self.task, self.rule, state)

    def reduce(self, model: TwoLayerNetwork) -> Fields:
        """The fields and the readout of a network."""
        return _fields(self.task, model)

    def network(self, t: ArrayLike) -> TwoLayerNetwork:
        """The whole network at one time: weights move within the span of the inputs only."""
        state, inputs = self.evaluate(t), self.task.inputs
        moved = (state.fields - self.initial.first @ inputs.T) / jnp.sum(inputs**2, axis=1)[None, :]
        first = self.initial.first + moved @ inputs
        return TwoLayerNetwork(first, state.readout, self.initial.activation)

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time."""
        return jnp.mean(residuals(self.task, self.evaluate(t)) ** 2) / 2


def residuals(task: RegressionTask, state: Fields) -> Float[Array, " examples"]:
    """$r_k = y_k - f(x_k)$."""
    return targets_of(task)[:, 0] - state.readout @ jax.nn.relu(state.fields)


def _fields(task: RegressionTask, model: TwoLayerNetwork) -> Fields:
    return Fields(model.first @ task.inputs.T, model.second[0])


def _velocity(active: Array, task: RegressionTask, rule: GradientFlow, state: Fields) -> Fields:
    """The flow, given which units are active on which examples."""
    hidden = jnp.where(active, state.fields, 0.0)
    residual = targets_of(task)[:, 0] - state.readout @ hidden
    pull = residual / (residual.shape[0] * rule.time_constant.astype(residual.dtype))
    squares = jnp.sum(task.inputs**2, axis=1)
    fields = jnp.where(active, state.readout[:, None] * (squares * pull)[None, :], 0.0)
    return Fields(fields, hidden @ pull)


def _velocity_until(silent_from: Array, task: RegressionTask, rule: GradientFlow, t: Array, state: Fields) -> Fields:
    return _velocity(t < silent_from, task, rule, state)


def _controller(start: Fields) -> diffrax.PIDController:
    """Tight, and in proportion to the weights where these are small."""
    dtype = start.readout.dtype
    size = jnp.maximum(jnp.max(jnp.abs(start.fields)), jnp.max(jnp.abs(start.readout)))
    size = jax.lax.stop_gradient(jnp.where(size > 0, jnp.minimum(size, 1.0), 1.0))
    rtol, atol = (1e-12, 1e-14) if dtype == jnp.float64 else (1e-6, 1e-8)
    return diffrax.PIDController(rtol=rtol, atol=atol * size)


def _lowest(t: Any, y: Fields, args: Any, **kwargs: Any) -> Array:
    """The lowest field of a unit that is active."""
    del t, kwargs
    active = args[0]
    lowest = jnp.min(jnp.where(active, y.fields, jnp.inf))
    # diffrax wants the default type here, whatever that of the state.
    return lowest.astype(jnp.result_type(float))


@eqx.filter_jit
def _silencing(
    start: Fields, task: RegressionTask, rule: GradientFlow, t1: Array, controller: diffrax.PIDController, max_steps: int
) -> tuple[Array, Any]:
    """When units fall silent: from one such event to the next, with what is active fixed in between."""
    term = diffrax.ODETerm(lambda t, y, args: _velocity(args[0], args[1], args[2], y))
    eps = jnp.finfo(t1.dtype).eps
    # Parallel units fall silent together, up to rounding; relative to how large a unit was at the start.
    nothing = 1e3 * eps * (jnp.max(jnp.abs(start.fields), axis=1, keepdims=True) + eps**8)
    event = diffrax.Event(_lowest, root_finder=optx.Bisection(rtol=4 * eps, atol=4 * eps))

    def leg(carry):
        t, state, silent_from, result, _ = carry
        active = silent_from > t1
        solution = diffrax.diffeqsolve(
            term,
            diffrax.Dopri8(),
            t0=t,
            t1=t1,
            dt0=None,
            y0=state,
            args=(active, task, rule),
            stepsize_controller=controller,
            event=event,
            max_steps=max_steps,
            throw=False,
        )
        t, state = solution.ts[-1], jax.tree.map(lambda x: x[-1], solution.ys)  # pyright: ignore
        fields = jnp.where(active, state.fields, jnp.inf)
        stopped = solution.result == diffrax.RESULTS.event_occurred
        falling = _velocity(active, task, rule, state).fields < 0
        fallen = stopped & active & ((falling & (fields <= nothing)) | (fields == jnp.min(fields)))
        silent_from = jnp.where(fallen, t, silent_from)
        state = Fields(jnp.where(fallen, 0.0, state.fields), state.readout)
        failed = ~stopped & (solution.result != diffrax.RESULTS.successful)
        result = RESULTS.where(failed, RESULTS.promote(solution.result), result)
        return t, state, silent_from, result, stopped & jnp.any(silent_from > t1)

    silent_from = jnp.where(start.fields > 0, jnp.inf, 0.0)
    first = (jnp.zeros_like(t1), start, silent_from, RESULTS.successful, jnp.asarray(True))
    _, _, silent_from, result, _ = jax.lax.while_loop(lambda carry: carry[-1], leg, first)
    return silent_from, result
