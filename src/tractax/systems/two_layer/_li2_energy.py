"""Features of a group: where hidden units end that climb their energy."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import inverse_participation_ratio
from ...core import Kind
from ...two_layer import FiniteGroup, Li2Energy, cyclic_group, dihedral_group
from .._system import AbstractSystem, Citation, Tolerance


class Li2EnergySystem(AbstractSystem):
    """Quadratic units on all pairs of cyclic and dihedral groups."""

    name: ClassVar[str] = "li2_energy"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "bound"
    summary: ClassVar[str] = "features of a group are the maxima of an energy: one representation each"
    citation: ClassVar[Citation] = Citation("Tian", 2025, "2509.21519")
    claim: ClassVar[Tolerance] = Tolerance(1e-10, "distance of the predicted maxima from where ascent ends, and back")

    def measure(self) -> Float[Array, ""]:
        """Forty random starts in each of four groups: every end is a predicted maximum, and every maximum an end."""
        groups = (cyclic_group(6), cyclic_group(7), dihedral_group(3), dihedral_group(4))
        return jnp.max(jnp.stack([_distance(*ends(group)) for group in groups]))

    def draw(self, figure: Any) -> None:
        """The ends of ascent in several groups, and what becomes of them with fewer pairs."""
        left, right = figure.subplots(1, 2)
        groups = {
            "$Z_5$": cyclic_group(5),
            "$Z_6$": cyclic_group(6),
            "$Z_7$": cyclic_group(7),
            "$S_3$": dihedral_group(3),
            "$D_4$": dihedral_group(4),
            "$D_5$": dihedral_group(5),
        }
        for i, group in enumerate(groups.values()):
            found, maxima = ends(group)
            for level in maxima:
                left.plot([i - 0.4, i + 0.4], [level, level], color="0.3")
            left.plot(i + np.linspace(-0.3, 0.3, found.size), found, "o", color="C0", mfc="white", ms=4)
        left.plot([], [], color="0.3", label="$M/2d$ and $M/4d$")
        left.plot([], [], "o", color="C0", mfc="white", ms=4, label="40 random starts")
        left.set(ylabel="energy $E(w)$ at the end of ascent", title="Maxima are representations", ylim=(0, 6.5))
        left.set_xticks(range(len(groups)), groups)
        left.legend(fontsize=8, loc="upper left")
        sizes = np.asarray([30, 40, 52, 60, 70, 80, 90, 105, 121])
        means = [float(jnp.mean(participation(11, int(size)))) for size in sizes]
        right.plot(sizes, means, "o-", mfc="white", ms=5)
        right.axhline(0.2, color="0.6", ls=":", lw=1)
        right.text(100, 0.215, "flat spectrum", color="0.4", fontsize=8)
        right.set(xlabel="pairs in the training set, of 121", ylabel="inverse participation ratio", ylim=(0, 1.05))
        right.set_title("Modulo 11: too few pairs, no frequency")


def ends(group: FiniteGroup) -> tuple[Float[Array, " starts"], Float[Array, " maxima"]]:
    """The energies at which forty random starts end, and the predicted ones."""
    energy = Li2Energy(group)
    starts = jax.random.normal(jax.random.key(0), (40, 2 * group.order))
    return jax.vmap(energy)(jax.vmap(lambda w: energy.ascend(w, 300))(starts)), energy.maxima


def participation(p: int, pairs: int) -> Float[Array, " starts"]:
    """The inverse participation ratio of units that climbed on a random part of the pairs, the mean of both halves."""
    chosen = np.random.default_rng(0).permutation(p * p)[:pairs]
    energy = Li2Energy(cyclic_group(p), np.stack(np.divmod(chosen, p), axis=1))
    starts = jax.random.normal(jax.random.key(0), (20, 2 * p))
    weights = jax.vmap(lambda w: energy.ascend(w, 500))(starts)
    return jnp.mean(inverse_participation_ratio(weights.reshape(20, 2, p)), axis=1)


def _distance(found: Float[Array, " starts"], maxima: Float[Array, " maxima"]) -> Float[Array, ""]:
    gaps = jnp.abs(found[:, None] - maxima[None, :])
    return jnp.maximum(jnp.max(jnp.min(gaps, axis=1)), jnp.max(jnp.min(gaps, axis=0)))
