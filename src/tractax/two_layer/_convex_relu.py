r"""The global optimum of a two-layer rectifier network with weight decay, from a convex programme.

Set-up. A network $f(x) = \sum_j\alpha_j\sigma(u_j\cdot x)$ with rectifiers and no biases is fitted to $n$ examples with
the loss of `WeightDecayTask`,

$$\tfrac12\lVert f(X) - y\rVert^2 + \tfrac\beta2\sum_j(\lVert u_j\rVert^2 + \alpha_j^2),$$

a sum over examples, not a mean; the width is free.

Theory. Let $D_i$ be the diagonal matrices of all patterns $1[Xu > 0]$. The least loss is that of

$$\min\ \tfrac12\Big\lVert\sum_iD_iX(v_i - w_i) - y\Big\rVert^2 + \beta\sum_i(\lVert v_i\rVert + \lVert w_i\rVert)
\quad\text{with}\quad (2D_i - I)Xv_i \ge 0,\ (2D_i - I)Xw_i \ge 0,$$

which is convex. A block $v_i \ne 0$ is the unit $u = v_i/\sqrt{\lVert v_i\rVert}$, $\alpha = \sqrt{\lVert v_i\rVert}$,
and $w_i$ one with negative $\alpha$. The dual is

$$\max\ \tfrac12\lVert y\rVert^2 - \tfrac12\lVert z - y\rVert^2 \quad\text{with}\quad
|z\cdot\sigma(Xu)| \le \beta\ \text{for all}\ \lVert u\rVert \le 1.$$

With some of the patterns only, the optimum is an upper bound, and it falls as patterns are added.

Method. The alternating direction method of multipliers, with one copy of the blocks for the norms and one of their fields
for the cones. Multipliers $\mu \ge 0$ of the cones certify the constraint of the dual in each of them,
$z\cdot D_iXu \le \lVert X^\top D_iz + X^\top(2D_i - I)\mu_i\rVert$ for $\lVert u\rVert\le1$, so that every iterate
gives a point that satisfies it, by scaling $z$ down.

Source: Pilanci and Ergen 2020, arXiv 2002.10553; Bai, Gautam and Sojoudi 2022, arXiv 2201.01965, for the use of this
method. The splitting, its elimination and the certificate are derived here.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from ..core import check_count, check_positive
from ._activation_patterns import activation_patterns
from ._network import TwoLayerNetwork
from ._weight_decay import WeightDecayTask

_BETWEEN_CHECKS = 50
_RELAXATION = 1.6
_PENALTY = 1e-3
# How unequal residuals must be for the penalty to change, and after how many steps it changes less.
_UNBALANCED = 2.0
_SETTLING = 2000


class ConvexReLUOptimum(eqx.Module):
    r"""What `ConvexReLU.solve` found, with its certificate.

    **Attributes:**

    - `blocks`: $v_i$ and $w_i$, the units with positive and with negative readout, shape `(2, patterns, in)`.
    - `dual_point`: $z$, shape `(examples,)`.
    - `primal`: the loss of the network, an upper bound on the least loss.
    - `dual`: what $z$ proves: no unit with one of the `patterns` can help a network to a lower loss.
    - `complete`: whether the patterns were all there are. Only then is `dual` a lower bound on the loss of every network.
    - `num_steps`: iterations taken.
    """

    blocks: Float[Array, "2 patterns in"]
    dual_point: Float[Array, " examples"]
    primal: Float[Array, ""]
    dual: Float[Array, ""]
    complete: bool = eqx.field(static=True)
    num_steps: Int[Array, ""]

    @property
    def gap(self) -> Float[Array, ""]:
        """`primal - dual`; with all patterns, by how much at most the network misses the least loss."""
        return self.primal - self.dual

    @property
    def network(self) -> TwoLayerNetwork:
        """The network of the blocks that are not zero, balanced; one unit of zeros where all are."""
        blocks = np.asarray(self.blocks)
        signs, chosen = np.nonzero(np.linalg.norm(blocks, axis=2))
        found = blocks[signs, chosen] if len(chosen) else blocks[0, :1]
        readout = np.sqrt(np.linalg.norm(found, axis=1, keepdims=True))
        first = np.divide(found, readout, out=np.zeros_like(found), where=readout > 0)
        flips = np.where(signs == 0, 1, -1) if len(chosen) else np.ones(1)
        return TwoLayerNetwork(first, readout[:, 0] * flips.astype(found.dtype))


class ConvexReLU(eqx.Module):
    r"""The convex programme of a two-layer rectifier network with weight decay.

    **Arguments:**

    - `task`: a `WeightDecayTask`.
    - `patterns`: the patterns of units to choose from, shape `(patterns, examples)`, such as `sampled_patterns`; all of
      them by default, which few inputs or few dimensions allow.

    **Raises:**

    `ValueError` for another task, for patterns of a wrong shape, or for too many patterns to list.
    """

    task: WeightDecayTask
    patterns: Bool[Array, "patterns examples"]
    complete: bool = eqx.field(static=True)

    def __init__(self, task: PyTree, patterns: PyTree = None):
        if not isinstance(task, WeightDecayTask):
            raise ValueError(f"`task` must be a WeightDecayTask; got {type(task).__name__}.")
        self.complete = patterns is None
        patterns = activation_patterns(task.inputs) if patterns is None else np.asarray(patterns)
        examples = task.targets.shape[0]
        if patterns.dtype != bool or patterns.ndim != 2 or patterns.shape[0] < 1 or patterns.shape[1] != examples:
            raise ValueError(
                f"`patterns` must be booleans of shape (patterns, {examples}); got {patterns.dtype} of shape "
                f"{patterns.shape}."
            )
        self.task, self.patterns = task, jnp.asarray(patterns)

    def solve(
        self,
        *,
        rtol: ArrayLike | None = None,
        max_steps: int = 200_000,
        throw: bool = True,
        progress_meter: diffrax.AbstractProgressMeter | None = None,
    ) -> ConvexReLUOptimum:
        r"""The optimum, with a network that attains it and a proof.

        **Arguments:**

        - `rtol`: stop once `primal` and `dual` differ by at most this part of $\tfrac12\lVert y\rVert^2$, the loss of no
          network at all; by default `1e-8` in float64 and `1e-4` in float32.
        - `max_steps`: iterations at most.
        - `throw`: whether to raise where `max_steps` did not suffice; otherwise see the `gap`.
        - `progress_meter`: as in diffrax: how much of `max_steps` has been used.

        **Raises:**

        `ValueError` for a tolerance that is not positive; a run-time error where `max_steps` did not suffice.
        """
        dtype = self.task.inputs.dtype
        default = 1e-8 if dtype == jnp.float64 else 1e-4
        rtol = check_positive("rtol", default if rtol is None else rtol, scalar=True).astype(dtype)
        max_steps = check_count("max_steps", max_steps)
        meter = diffrax.NoProgressMeter() if progress_meter is None else progress_meter
        optimum, done = _solve(self, rtol, jnp.asarray(max_steps), meter)
        if not throw:
            return optimum
        message = "The programme was not solved to `rtol` in `max_steps`: raise either, or see the gap with throw=False."
        return eqx.error_if(optimum, jnp.logical_not(done), message)


class _Iterate(eqx.Module):
    """Blocks, their fields in the cones, the scaled multipliers of both, and the penalty of the method."""

    blocks: Float[Array, "2 patterns in"]
    fields: Float[Array, "2 patterns examples"]
    block_prices: Float[Array, "2 patterns in"]
    field_prices: Float[Array, "2 patterns examples"]
    penalty: Float[Array, ""]

    def rebalanced(self, factor: Float[Array, ""]) -> "_Iterate":
        """The same multipliers, under another penalty."""
        prices = (self.block_prices / factor, self.field_prices / factor)
        return _Iterate(self.blocks, self.fields, *prices, self.penalty * factor)


class _Splitting(eqx.Module):
    """The programme in units in which its data are of order one, and what every iteration needs of them."""

    inputs: Float[Array, "examples in"]
    targets: Float[Array, " examples"]
    decay: Float[Array, ""]
    patterns: Bool[Array, "patterns examples"]
    signs: Float[Array, "patterns examples"]
    inverse: Float[Array, "in in"]
    rotation: Float[Array, "examples examples"]
    spectrum: Float[Array, " examples"]

    def __init__(self, inputs: Array, targets: Array, decay: Array, patterns: Array):
        self.inputs, self.targets, self.decay, self.patterns = inputs, targets, decay, patterns
        masks = patterns.astype(inputs.dtype)
        lengths = jnp.linalg.norm(inputs, axis=1)
        # A cone is the same for inputs of length one, which are better conditioned.
        self.signs = (2 * masks - 1) / jnp.where(lengths == 0, 1.0, lengths)[None, :]
        # Signs square to one, so that all blocks of the normal equations share one matrix of the cones.
        unit = inputs / jnp.where(lengths == 0, 1.0, lengths)[:, None]
        self.inverse = jnp.linalg.inv(jnp.eye(inputs.shape[1], dtype=inputs.dtype) + unit.T @ unit)
        # What remains is of the size of the data, and diagonal in a basis that no penalty changes.
        kernel = 2 * (inputs @ self.inverse @ inputs.T) * (masks.T @ masks)
        spectrum, self.rotation = jnp.linalg.eigh(kernel)
        self.spectrum = jnp.maximum(spectrum, 0.0)

    def outputs(self, fields: Float[Array, "2 patterns examples"]) -> Float[Array, " examples"]:
        """What blocks with these fields add up to."""
        return jnp.sum(jnp.where(self.patterns, fields[0] - fields[1], 0.0), axis=0)

    def back(self, errors: Float[Array, " examples"]) -> Float[Array, "2 patterns in"]:
        """The adjoint of `outputs`, by blocks."""
        masked = jnp.where(self.patterns, errors[None, :], 0.0) @ self.inputs
        return jnp.stack([masked, -masked])

    def cone_back(self, prices: Float[Array, "2 patterns examples"]) -> Float[Array, "2 patterns in"]:
        """The adjoint of the fields in the cones, by blocks."""
        return (prices * self.signs[None]) @ self.inputs

    def start(self) -> _Iterate:
        """No blocks."""
        dtype = self.inputs.dtype
        blocks = jnp.zeros((2, self.patterns.shape[0], self.inputs.shape[1]), dtype)
        fields = jnp.zeros((2, *self.patterns.shape), dtype)
        return _Iterate(blocks, fields, blocks, fields, jnp.asarray(_PENALTY, dtype))

    def least(self, now: _Iterate) -> tuple[Float[Array, "2 patterns in"], Float[Array, "2 patterns examples"]]:
        """The blocks of least error, by the matrix inversion lemma, and their fields."""
        wanted = now.blocks - now.block_prices + self.cone_back(now.fields - now.field_prices)
        free = wanted @ self.inverse
        missing = self.rotation.T @ (self.targets - self.outputs(free @ self.inputs.T))
        blocks = free + self.back(self.rotation @ (missing / (now.penalty + self.spectrum))) @ self.inverse
        return blocks, blocks @ self.inputs.T

    def step(self, now: _Iterate) -> _Iterate:
        """One iteration, over-relaxed."""
        blocks, fields = self.least(now)
        blocks = _RELAXATION * blocks + (1 - _RELAXATION) * now.blocks + now.block_prices
        cones = _RELAXATION * fields * self.signs[None] + (1 - _RELAXATION) * now.fields + now.field_prices
        lengths = jnp.linalg.norm(blocks, axis=2, keepdims=True)
        bound = self.decay / now.penalty
        kept = jnp.where(lengths > bound, 1 - bound / jnp.where(lengths == 0, 1.0, lengths), 0.0) * blocks
        inside = jnp.maximum(cones, 0.0)
        return _Iterate(kept, inside, blocks - kept, cones - inside, now.penalty)

    def imbalance(self, before: _Iterate, now: _Iterate) -> Float[Array, ""]:
        """How much the constraints of the splitting are violated, over how much its multipliers still move."""
        blocks, fields = self.least(before)
        fields = fields * self.signs[None]
        violation = _size(blocks - now.blocks, fields - now.fields) / _size(blocks, fields)
        moved = _size(now.blocks - before.blocks, now.fields - before.fields)
        ratio = violation * _size(now.block_prices, now.field_prices) / moved
        return jnp.where(jnp.isfinite(ratio) & (ratio > 0), ratio, 1.0)

    def certificate(self, now: _Iterate) -> tuple[Array, Array, Array]:
        """The loss of the network of these blocks, a lower bound on that of any other, and the point that proves it."""
        units = jax.nn.relu(now.blocks @ self.inputs.T)
        error = jnp.sum(units[0] - units[1], axis=0) - self.targets
        primal = jnp.sum(error**2) / 2 + self.decay * jnp.sum(jnp.linalg.norm(now.blocks, axis=2))
        z = self.targets - self.outputs(self.least(now)[1])
        # Multipliers of the cones are not positive here: they bound what any unit can gain.
        gains = jnp.linalg.norm(self.back(z) - now.penalty * self.cone_back(now.field_prices), axis=2)
        most, size = self.decay / jnp.max(gains), jnp.sum(z**2)
        z = jnp.clip(jnp.sum(z * self.targets) / jnp.where(size == 0, 1.0, size), -most, most) * z
        return primal, jnp.sum(z * self.targets) - jnp.sum(z**2) / 2, z


def _size(blocks: Array, fields: Array) -> Float[Array, ""]:
    return jnp.sqrt(jnp.sum(blocks**2) + jnp.sum(fields**2))


@eqx.filter_jit
def _solve(
    programme: ConvexReLU, rtol: Array, max_steps: Array, meter: diffrax.AbstractProgressMeter
) -> tuple[ConvexReLUOptimum, Bool[Array, ""]]:
    task = programme.task
    scale, size = jnp.linalg.norm(task.inputs), jnp.linalg.norm(task.targets)
    scale, size = jnp.where(scale == 0, 1.0, scale), jnp.where(size == 0, 1.0, size)
    splitting = _Splitting(task.inputs / scale, task.targets / size, task.decay / (scale * size), programme.patterns)

    # Units on their way may have patterns that are not listed, and a loss below the dual: hence the absolute value.
    def unfinished(carry: tuple) -> Bool[Array, ""]:
        steps, _, (primal, dual, _), _ = carry
        return (steps < max_steps) & jnp.logical_not(jnp.abs(primal - dual) <= rtol / 2)

    def body(carry: tuple) -> tuple:
        steps, now, _, progress = carry
        before = jax.lax.fori_loop(0, _BETWEEN_CHECKS - 1, lambda _, it: splitting.step(it), now)
        now = splitting.step(before)
        found = splitting.certificate(now)
        ratio = jnp.sqrt(splitting.imbalance(before, now))
        unequal = (ratio > _UNBALANCED) | (ratio < 1 / _UNBALANCED)
        steps = steps + _BETWEEN_CHECKS
        progress = meter.step(progress, jnp.minimum(steps.astype(float) / max_steps.astype(float), 1.0))
        # Ever less, so that the method settles.
        widest = 1 + 4 * _SETTLING / (_SETTLING + steps.astype(ratio.dtype))
        factor = jnp.where(unequal, jnp.clip(ratio, 1 / widest, widest), 1.0)
        return steps, now.rebalanced(factor), found, progress

    begin = splitting.start()
    carry = (jnp.asarray(0), begin, splitting.certificate(begin), meter.init())
    steps, now, (primal, dual, z), progress = jax.lax.while_loop(unfinished, body, carry)
    meter.close(progress)
    optimum = ConvexReLUOptimum(
        now.blocks * (size / scale), z * size, primal * size**2, dual * size**2, programme.complete, steps
    )
    return optimum, jnp.abs(primal - dual) <= rtol / 2
