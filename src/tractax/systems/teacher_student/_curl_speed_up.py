"""Curl descent near a saddle: units that climb the loss leave the others sooner, and learning is faster."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...analysis import crossing_times
from ...core import Kind
from ...rules import CurlDescent
from ...teacher_student import CommitteeTask, SoftCommittee
from ...training import train
from .._system import AbstractSystem, Citation, Signature

_INPUTS, _UNITS, _TEACHER = 3, 4, 2
_SEEDS, _LEVEL = 12, 0.01


class CurlSpeedUpSystem(AbstractSystem):
    """Four nearly equal units learn two; some of the four climb the loss in the hidden layer."""

    name: ClassVar[str] = "curl_speed_up"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "half of the hidden layer climbs the loss, which takes the network off its plateau sooner"
    citation: ClassVar[Citation] = Citation("Ninou, Kadmon, Cayco-Gajic", 2025, "2510.02765")
    claim: ClassVar[Signature] = Signature(1.2, "median speed-up to 1 % of the loss, with two of four units flipped")

    def case(self, seed: ArrayLike) -> tuple[SoftCommittee, CommitteeTask]:
        """A student of small weights, equal up to 0.001, and a teacher with orthogonal units."""
        axes, common, apart, readout = jax.random.split(jax.random.key(seed), 4)
        root = _INPUTS**0.5
        teacher = 1.5 * root * jnp.linalg.qr(jax.random.normal(axes, (_INPUTS, _INPUTS)))[0][:_TEACHER]
        weights = 0.3 * jax.random.normal(common, (1, _INPUTS)) + 1e-3 * jax.random.normal(apart, (_UNITS, _INPUTS))
        student = SoftCommittee(root * weights, 0.3 + 1e-3 * jax.random.normal(readout, (_UNITS,)))
        return student, CommitteeTask(SoftCommittee(teacher))

    def losses(self, ts: Float[Array, " times"], flipped: ArrayLike, seed: ArrayLike) -> Float[Array, " times"]:
        """The loss while training, relative to that at the start, with so many hidden units flipped."""
        model, task = self.case(seed)
        rule = CurlDescent((jnp.where(jnp.arange(_UNITS) < flipped, -1.0, 1.0), 1.0))
        losses = train(model, task, rule, ts).observed
        return losses / losses[0]

    def times(self, flipped: ArrayLike) -> Float[Array, " seeds"]:
        """When the loss reaches 1 % of that at the start, for each of twelve starts; infinite if not by t = 1000."""
        ts = jnp.linspace(0.0, 1000.0, 1001)
        losses = jax.vmap(self.losses, in_axes=(None, None, 0))(ts, flipped, jnp.arange(_SEEDS))
        times = crossing_times(ts, losses.T, _LEVEL)
        return jnp.where(jnp.isnan(times), jnp.inf, times)

    def measure(self) -> Float[Array, ""]:
        """The median over starts of the time without flips, divided by that with two."""
        times = jax.jit(self.times)
        return jnp.median(times(0) / times(2))

    def draw(self, figure: Any) -> None:
        """The loss of one start, and the times of all against the number of flipped units."""
        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, 500.0, 1001)
        times = jax.jit(self.times)
        reached = []
        for flipped in range(4):
            label = f"{flipped} of {_UNITS} flipped" if flipped else "gradient flow"
            left.semilogy(ts, self.losses(ts, flipped, 0), color=f"C{flipped}", label=label)
            found = np.asarray(times(flipped))
            reached.append(np.median(found))
            shift = np.linspace(-0.15, 0.15, _SEEDS)
            right.plot(flipped + shift, np.minimum(found, 1000.0), "o", color=f"C{flipped}", mfc="white", ms=4)
        left.axhline(_LEVEL, color="0.7", lw=1, zorder=0)
        left.set(xlabel="time $t/\\tau$", ylabel="loss / loss at the start")
        left.legend(fontsize=8)
        right.plot(range(3), reached[:3], "_", color="k", ms=24, label="median")
        right.axhline(1000.0, color="0.7", lw=1, zorder=0)
        right.text(3.0, 960.0, "not by $t = 1000$", fontsize=8, va="top", ha="center")
        right.set(xlabel="flipped hidden units", ylabel="time to 1 % of the loss", xticks=range(4), ylim=(0, None))
        right.legend(fontsize=8, loc="center left")
