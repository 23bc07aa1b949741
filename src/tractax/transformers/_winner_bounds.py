r"""Which tokens win attention, and by how much.

In `ScanAndSnap`, where the decoder follows attention closely ($\eta_Y\gg\eta_Z$), the logit of every distinct token
grows as $\tau\dot z_l = \eta_Z\,\xi f_l^2$ with the same $\xi = \frac{K-1}K\beta\frac{\rho h}{1-\rho}$: the frequent
tokens win.
The relative gain of a token over another is then $r(t) = r(0)\,\chi_l(t)$ with $\chi_l = e^{2(z_l - z_l(0))}$, and with
$B = \tfrac{\eta_Z}\tau\int_0^t\xi$ the growth of the most frequent distinct token $w$ lies between

$$2f_w(0)^2B\ \le\ \ln\chi_w\ \le\ 2B .$$

The upper bound holds in the exact flow too. The lower one does not: the decoder lags behind, and where shared tokens are
rare, $\ln\chi_w$ falls short of it by a fraction of order $\eta_Z/\eta_Y$.

Source: Tian, Wang, Chen and Du 2023, arXiv 2305.16380; the lag is found here.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import check_count, check_times, integrate_flow
from ._scan_and_snap import ScanAndSnap
from ._token_attention_flow import two_rates


class WinnerBounds(NamedTuple):
    r"""How the most frequent distinct token gains, on a logarithmic scale.

    **Attributes:**

    - `growth`: $\ln\chi_w = 2(z_w(t) - z_w(0))$, shape `(times,)`.
    - `lower`: $2f_w(0)^2B$, up to a relative error of order $\eta_Z/\eta_Y$.
    - `upper`: $2B$.
    """

    growth: Float[Array, " times"]
    lower: Float[Array, " times"]
    upper: Float[Array, " times"]


def winner_bounds(solution: PyTree, ts: ArrayLike) -> WinnerBounds:
    r"""The growth of the most frequent distinct token, and its bounds.

    **Arguments:**

    - `solution`: a `ScanAndSnap`.
    - `ts`: times up to its horizon, increasing, shape `(times,)`.

    **Raises:**

    `ValueError` for another solution, or times that are negative, unordered or beyond the horizon.
    """
    if not isinstance(solution, ScanAndSnap):
        raise ValueError(f"`solution` must be a ScanAndSnap; got {type(solution).__name__}.")
    alike, initial = solution.alike, solution.evaluate(0.0).logits
    ts = check_times("ts", ts, initial.dtype)
    features = alike.features(initial)
    winner = jnp.argmax(jnp.where(alike.distinct, features, -1.0))
    logits = jax.vmap(solution.evaluate)(ts).logits[:, winner]
    scan = integrate_flow(eqx.Partial(_scan_rate, solution), jnp.zeros_like(initial[0]), solution.t1)
    scanned = jax.vmap(scan.evaluate)(ts)
    return WinnerBounds(2 * (logits - initial[winner]), 2 * features[winner] ** 2 * scanned, 2 * scanned)


def relative_gain(attention: Float[Array, "*times tokens"], token: int, other: int) -> Float[Array, "*times"]:
    r"""$r = c_l^2/c_{l'}^2 - 1$ of a token $l$ over another one $l'$, from attention or attention maps.

    **Arguments:**

    - `attention`: $c$, tokens along the last axis.
    - `token`, `other`: their numbers, from 0.

    **Raises:**

    `ValueError` for tokens that there are not.
    """
    for name, number in (("token", token), ("other", other)):
        if check_count(name, number, least=0) >= attention.shape[-1]:
            raise ValueError(f"`{name}` must be one of {attention.shape[-1]} tokens, from 0; got {number}.")
    return (attention[..., token] / attention[..., other]) ** 2 - 1


def _scan_rate(solution: ScanAndSnap, t: Float[Array, ""], scanned: Float[Array, ""]) -> Float[Array, ""]:
    r"""$\eta_Z\xi/\tau$."""
    del scanned
    state, alike = solution.path.evaluate(t), solution.alike
    gap, shared = alike.features(state.logits) @ state.decoder, alike.shared_share(state.logits)
    _, eta_z, _ = two_rates(solution.rule, gap.dtype)
    return eta_z * (1 - 1 / alike.classes) * alike.speed(gap) * gap * shared / (1 - shared)
