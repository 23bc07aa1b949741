r"""When the loss of merged linear attention falls, from small weights.

Set-up. As in `LinearAttentionFlow`, with generic weights of scale $\varepsilon\to0$ and any number of heads.

Theory. Near zero the flow is linear: with $D = \Lambda\Omega\Lambda_q$ and $s = \lVert D\rVert_F$, the part $a_h =
\tfrac12(v_h + \langle U_h, D\rangle/s)$ of each head grows as $e^{st/\tau}$, and the rest does not. Once it dominates
all heads are multiples of a single one, which leaves the saddle along $(v, U) \propto (1, D/s)$, always on the same
orbit. Hence

$$t_{\text{drop}} = \frac\tau s\Big(\ln\frac1{\lVert a\rVert} + C\Big) + O(\varepsilon),$$

where $C$, the time along the orbit, knows nothing of the initial weights. There is one plateau and one drop, however many
heads there are.

Source: Zhang, Singh, Latham and Saxe 2025, arXiv 2501.16265 ($\ln(1/\varepsilon)$ and one drop); the constant is
derived here.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..core import AbstractRule, require
from ..rules import GradientFlow, check_flow
from ..special import monotone_inverse
from ._base import check_attention
from ._in_context_regression import InContextRegression
from ._linear_attention import LinearAttention
from ._linear_attention_flow import MergedHeads, merged_heads, merged_velocity


def drop_time(model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> Float[Array, ""]:
    r"""The time at which the loss has fallen half-way from that of zero weights to the best, to leading order.

    **Arguments:**

    - `model`: a `LinearAttention` network with small weights.
    - `task`: an `InContextRegression`.
    - `rule`: gradient flow without weight decay; `None` for `tx.GradientFlow()`.

    **Returns:**

    $t_{\text{drop}}$, in the rule's units; infinite for weights without a part that grows.

    **Raises:**

    `ValueError` if the network does not fit the task, its weights are not small, or the rule is another one.
    """
    heads, rule = merged_heads(check_attention(model, task, LinearAttention)), check_flow(rule, "drop_time")
    message = "`rule` must have no weight decay for drop_time: small weights would not grow as they do without it."
    tau = require(rule.time_constant, rule.weight_decay == 0, message)
    speed = jnp.linalg.norm(task.drive)
    direction = task.drive / speed
    amplitude = jnp.linalg.norm(heads.value + jnp.einsum("hij,ij->h", heads.key_query, direction)) / 2
    # The orbit, from so near the saddle that the distance, which enters by its square, is lost in rounding.
    distance = float(jnp.finfo(speed.dtype).eps) ** 0.4 * jnp.sqrt(jnp.linalg.norm(task.optimum))
    along = _half_time(task, MergedHeads(distance[None], distance * direction[None]))
    time = tau.astype(speed.dtype) * (along + jnp.log(distance / amplitude) / speed)
    message = "`model` must have small weights for drop_time, so that the loss starts above the middle of its drop."
    return require(time, time > 0, message)


@eqx.filter_jit
def _half_time(task: InContextRegression, start: MergedHeads) -> Float[Array, ""]:
    """When the flow from `start` has halved what the loss has to lose."""
    level = (jnp.sum(task.task_covariance * task.query_covariance) / 2 + task.loss_of_map(task.optimum)) / 2
    double = level.dtype == jnp.float64
    rtol = 1e-12 if double else 1e-6

    def fallen(t: Any, y: MergedHeads, args: Any, **options: Any) -> Bool[Array, ""]:
        del t, args, options
        return task.loss_of_map(y.effective_map) < level

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: merged_velocity(task, GradientFlow(), t, y)),
        diffrax.Dopri8(),
        t0=0.0,
        t1=jnp.asarray(jnp.inf, level.dtype),
        dt0=None,
        y0=start,
        saveat=diffrax.SaveAt(t1=True, dense=True),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol * start.value[0]),
        event=diffrax.Event(fallen),
        max_steps=1024,
    )

    def fall(t: Float[Array, ""]) -> Float[Array, ""]:
        return -task.loss_of_map(solution.evaluate(t).effective_map)

    end = jax.lax.stop_gradient(solution.ts[-1])  # pyright: ignore
    return monotone_inverse(fall, -level, jnp.zeros_like(end), end)
