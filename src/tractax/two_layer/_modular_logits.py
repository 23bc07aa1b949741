r"""What phase-locked networks answer: the scores of modular addition, pair by pair.

Set-up. Every neuron has one frequency, $\theta_m[x] = \alpha\cos(\omega_kx + \varphi_m)$ and $\xi_m[j] =
\beta\cos(\omega_kj + \psi_m)$ with $\omega_k = 2\pi k/p$ and odd $p$; its phases are locked, $\psi_m = 2\varphi_m$, and
those of one frequency spread out, so that $\sum_me^{2i\varphi_m} = \sum_me^{4i\varphi_m} = 0$.

Theory. With the quadratic activation and $A_k = \sum_m\alpha^2\beta$,

$$f_j(x, y) = \tfrac12\sum_kA_k\,\big(1 + \cos\omega_k(x - y)\big)\cos\omega_k(x + y - j),$$

exactly, and if all $A_k = A$ this is $\tfrac A4\big[p\,1_{j = x+y} + \tfrac p2(1_{j=2x} + 1_{j=2y}) - 2\big]$: right, but
with two flaws half as large, which for $x = y$ fall on the right answer. With rectifiers and $A_k = \sum_m\alpha\beta$,

$$f_j(x, y) = \frac2{3\pi}\sum_kA_k\,\big|\cos\tfrac{\omega_k(x-y)}2\big|\cos\omega_k(x + y - j)$$

in the limit of many neurons with evenly spread phases: with $N$ of them, $N$ odd, up to $O(N^{-2})$. Separate embeddings
$\cos(\omega_kx + \varphi)$, $\cos(\omega_ky + \varphi')$ with the readout $\cos(\omega_kj + \varphi + \varphi')$,
$\varphi$ and $\varphi'$ on a grid of $N_1\times N_2$ phases, have no flaws, $f_j = \tfrac{N_1N_2}4(p\,1_{j=x+y} - 1)$.

Source: He, Wang, Chen and Yang 2026, arXiv 2602.16849; Gromov 2023, arXiv 2301.02679 (separate embeddings).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import Assumption, check_count, check_finite, check_key, enforce, relative_norm, tolerance_for
from ._modular_modes import ModularModes, modular_modes
from ._modular_network import ModularNetwork, SeparateModularNetwork, check_modulus, residue_angles, same_function


def phase_locked_network(
    p: int,
    neurons: int,
    *,
    embedding: ArrayLike = 1.0,
    readout: ArrayLike = 1.0,
    phase: ArrayLike = 0.0,
    activation: PyTree = jnp.square,
) -> ModularNetwork:
    r"""Locked neurons of every frequency, with the phases $\varphi_m = \varphi + 2\pi m/N$ and $\psi_m = 2\varphi_m$.

    **Arguments:**

    - `p`: the modulus, odd.
    - `neurons`: $N$ of each frequency; with 1, 2 and 4 the phases are not spread out in the sense of theory.
    - `embedding`, `readout`: $\alpha$ and $\beta$, one number, or one for each frequency, shape `((p - 1)/2,)`.
    - `phase`: $\varphi$.
    - `activation`: as in `ModularNetwork`.

    **Returns:**

    A network of $N(p-1)/2$ neurons, those of $k = 1$ first.
    """
    p, neurons = check_modulus(p, odd=True), check_count("neurons", neurons)
    alpha, beta = (_per_frequency(name, x, p) for name, x in (("embedding", embedding), ("readout", readout)))
    phase = check_finite("phase", phase, scalar=True)
    phases = phase.astype(alpha.dtype) + jnp.arange(neurons, dtype=alpha.dtype) * (2 * jnp.pi / neurons)
    angles = residue_angles(p, alpha.dtype)[:, None, :]
    waves = jnp.cos(angles + phases[None, :, None]), jnp.cos(angles + 2 * phases[None, :, None])
    theta, xi = (size[:, None, None] * wave for size, wave in zip((alpha, beta), waves, strict=True))
    return ModularNetwork(theta.reshape(-1, p), xi.reshape(-1, p), activation)


def quadratic_logits(p: int, strengths: ArrayLike) -> Float[Array, "p p p"]:
    r"""The scores of a phase-locked network with quadratic activation.

    **Arguments:**

    - `p`: the modulus, odd.
    - `strengths`: $A_k = \sum_m\alpha^2\beta$, one number for all, or one for each frequency.

    **Returns:**

    $f_j(x, y)$, indexed by $x$, $y$, $j$.
    """
    p = check_modulus(p, odd=True)
    strengths = _per_frequency("strengths", strengths, p)
    waves = jnp.cos(residue_angles(p, strengths.dtype))
    return _combine(strengths[:, None] * (1 + waves) / 2, waves)


def relu_logits(p: int, strengths: ArrayLike) -> Float[Array, "p p p"]:
    r"""The scores of a phase-locked network of rectifiers, in the limit of many neurons.

    **Arguments:**

    - `p`: the modulus, odd.
    - `strengths`: $A_k = \sum_m\alpha\beta$, one number for all, or one for each frequency.

    **Returns:**

    $f_j(x, y)$, indexed by $x$, $y$, $j$.
    """
    p = check_modulus(p, odd=True)
    strengths = _per_frequency("strengths", strengths, p)
    angles = residue_angles(p, strengths.dtype)
    return _combine(2 / (3 * jnp.pi) * strengths[:, None] * jnp.abs(jnp.cos(angles / 2)), jnp.cos(angles))


def phase_locked_logits(model: PyTree, *, check: bool = True) -> Float[Array, "p p p"]:
    """The scores of a phase-locked network, from the amplitudes of its neurons.

    **Arguments:**

    - `model`: a `ModularNetwork` with odd $p$ whose activation is `jnp.square` or `jax.nn.relu`.
    - `check`: refuse networks that are not phase-locked; without, those of trained networks are approximations.

    **Returns:**

    `quadratic_logits` or `relu_logits`.

    **Raises:**

    `ValueError` for another activation, or if one of `phase_locked_assumptions` fails.
    """
    quadratic = _is_quadratic(_shared(model).activation)
    strengths, _ = _measure(model, quadratic)
    if check:
        strengths = enforce(strengths, "phase_locked_logits", phase_locked_assumptions(model))
    return (quadratic_logits if quadratic else relu_logits)(model.p, strengths)


def phase_locked_assumptions(model: PyTree) -> tuple[Assumption, ...]:
    """How far a network is from what `phase_locked_logits` takes for granted."""
    _, violations = _measure(model, _is_quadratic(_shared(model).activation))
    names = (
        "no constants in embedding and readout",
        "one frequency in each neuron",
        "locked phases, ψ = 2φ",
        "phases of each frequency without second and fourth harmonic",
    )
    tolerance = tolerance_for(model.embedding)
    return tuple(Assumption(name, violation, tolerance) for name, violation in zip(names, violations, strict=True))


@eqx.filter_jit
def _measure(model: ModularNetwork, quadratic: bool) -> tuple[Array, tuple[Array, ...]]:
    """The strength of each frequency, and how far the network is from being locked."""
    modes = modular_modes(model)
    alpha, beta = modes.embedding_amplitude, modes.readout_amplitude
    weights = beta * (alpha**2 if quadratic else alpha)
    best = jax.nn.one_hot(jnp.argmax(alpha, axis=1), alpha.shape[1], dtype=alpha.dtype)
    others = jnp.concatenate([(1 - best) * alpha, (1 - best) * beta])
    constants = jnp.stack([jnp.mean(model.embedding, axis=1), jnp.mean(model.readout, axis=1)])
    harmonics = jnp.stack([_harmonic(modes, weights, order) for order in (2, 4)])
    violations = (
        relative_norm(constants, alpha),
        relative_norm(others, alpha),
        relative_norm(weights * jnp.sin(modes.misalignment / 2), weights),
        jnp.max(harmonics),
    )
    # What is not locked does not add up.
    return jnp.sum(weights * jnp.cos(modes.misalignment), axis=0), violations


def gromov_network(p: int, left: int, right: int) -> SeparateModularNetwork:
    r"""Separate embeddings that add without flaws, on a full grid of phases for every frequency.

    **Arguments:**

    - `p`: the modulus, odd.
    - `left`, `right`: $N_1$ and $N_2$, the numbers of phases of the two embeddings, at least 3.

    **Returns:**

    A quadratic network of $N_1N_2(p-1)/2$ neurons, whose scores are `gromov_logits`.
    """
    p, left, right = check_modulus(p, odd=True), check_count("left", left, least=3), check_count("right", right, least=3)
    dtype = jnp.result_type(float)
    first, second = (2 * jnp.pi / n * jnp.arange(n, dtype=dtype) for n in (left, right))
    phases = jnp.stack(jnp.meshgrid(first, second, indexing="ij")).reshape(2, -1)
    frequencies = jnp.repeat(jnp.arange((p - 1) // 2), left * right)
    return _gromov(p, frequencies, jnp.tile(phases, (1, (p - 1) // 2)))


def random_gromov_network(p: int, neurons: int, *, key: PRNGKeyArray | None) -> SeparateModularNetwork:
    """The same with random phases, and frequencies in turn: right with enough neurons.

    **Arguments:**

    - `p`: the modulus, odd.
    - `neurons`: how many, of all frequencies together.
    - `key`: for the phases.
    """
    p, neurons = check_modulus(p, odd=True), check_count("neurons", neurons)
    check_key(key)
    phases = jax.random.uniform(key, (2, neurons), maxval=2 * jnp.pi)
    return _gromov(p, jnp.arange(neurons) % ((p - 1) // 2), phases)


def gromov_logits(p: int, left: int, right: int) -> Float[Array, "p p p"]:
    r"""$\tfrac{N_1N_2}4(p\,1_{j=x+y} - 1)$, the scores of `gromov_network`, indexed by $x$, $y$, $j$."""
    p, left, right = check_modulus(p, odd=True), check_count("left", left, least=3), check_count("right", right, least=3)
    x = jnp.arange(p)
    answers = jax.nn.one_hot((x[:, None] + x[None, :]) % p, p, dtype=jnp.result_type(float))
    return (left * right / 4) * (p * answers - 1)


def _gromov(p: int, frequencies: Array, phases: Array) -> SeparateModularNetwork:
    angles = residue_angles(p, phases.dtype)[frequencies]
    left, right = phases[:, :, None]
    return SeparateModularNetwork(jnp.cos(angles + left), jnp.cos(angles + right), jnp.cos(angles + left + right))


@eqx.filter_jit
def _combine(of_difference: Float[Array, "frequencies p"], waves: Float[Array, "frequencies p"]) -> Float[Array, "p p p"]:
    """Σₖ g_k(x − y) h_k(x + y − j)."""
    p = waves.shape[1]
    x = jnp.arange(p)
    # A function of two residues only.
    table = of_difference.T @ waves
    difference, total = x[:, None] - x[None, :], x[:, None] + x[None, :]
    return table[(difference % p)[:, :, None], (total[:, :, None] - x[None, None, :]) % p]


def _per_frequency(name: str, value: ArrayLike, p: int) -> Float[Array, " frequencies"]:
    value = check_finite(name, value)
    if value.shape not in ((), ((p - 1) // 2,)):
        raise ValueError(f"`{name}` must be one number or have shape ({(p - 1) // 2},); got {value.shape}.")
    return jnp.broadcast_to(value, ((p - 1) // 2,))


def _harmonic(modes: ModularModes, weights: Array, order: int) -> Float[Array, " frequencies"]:
    """$|\\sum_mw_me^{in\\varphi_m}|/\\sum_mw_m$ of each frequency."""
    angles = order * modes.embedding_phase
    size = jnp.hypot(jnp.sum(weights * jnp.cos(angles), axis=0), jnp.sum(weights * jnp.sin(angles), axis=0))
    total = jnp.sum(weights, axis=0)
    # Frequencies that no neuron has are rounding.
    absent = total <= 1e3 * jnp.finfo(total.dtype).eps * jnp.max(total)
    return jnp.where(absent, 0.0, size / jnp.where(absent, 1.0, total))


def _shared(model: PyTree) -> ModularNetwork:
    if not isinstance(model, ModularNetwork):
        raise ValueError(f"`model` must be a ModularNetwork; got {type(model).__name__}.")
    return model


def _is_quadratic(activation: Callable) -> bool:
    for known in (jnp.square, jax.nn.relu):
        if same_function(activation, known):
            return known is jnp.square
    raise ValueError(f"`model` must have the activation jnp.square or jax.nn.relu; got {activation!r}.")
