"""The order parameters of a soft committee machine: tractax, the same equations in SciPy, and simulating 1,000 inputs.

Four units learn four (erf, both layers trained, noisy answers) up to t = 1,000 steps/N. SciPy integrates the equations in
vectorised NumPy, written for this script alone; its errors and ours are taken against SciPy at rtol 1e-13. The simulation
is run for a hundredth of its million steps, and its time taken a hundredfold.

    python benchmarks/order_parameters.py
"""

import functools
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from _timing import describe_machine, median_seconds
from scipy.integrate import solve_ivp

import tractax as tx
from tractax.teacher_student import CommitteeTask, OnlineSGD, SoftCommitteeFlow, committees

UNITS, INPUTS, T1, RATE, NOISE = 4, 1000, 1000.0, 0.5, 0.1


def velocity(t, y):
    """The flow of (Q, R, v) for erf units and a teacher with orthonormal units and a readout of ones."""
    del t
    k = UNITS
    student, cross, readout = y[: k * k].reshape(k, k), y[k * k : 2 * k * k].reshape(k, k), y[2 * k * k :]
    c = np.block([[student, cross], [cross.T, np.eye(k)]])
    s = np.concatenate([readout, -np.ones(k)])
    wide = 1 + np.diag(c)
    pair = 2 / np.pi * np.arcsin(np.clip(c / np.sqrt(wide[:, None] * wide), -1, 1))
    square = wide[:, None] * wide - c**2
    weight = s / np.sqrt(square)
    drift = 2 / np.pi * (weight @ c - c * (c * weight).sum(1)[:, None] / wide[:, None])
    a = -RATE * readout[:, None] * drift[:k]
    block = square[:k, :k]
    # The covariance of all fields under the Gaussian weight that two slopes make.
    i, j = c[:k, None, :, None], c[None, :k, :, None]
    m, n = c[:k, None, None, :], c[None, :k, None, :]
    wide_i, wide_j, ij = wide[:k, None, None, None], wide[None, :k, None, None], c[:k, :k, None, None]
    given = c - (j * n * wide_i + i * m * wide_j - ij * (i * n + m * j)) / block[:, :, None, None]
    own = 1 + np.einsum("ijcc->ijc", given)
    angle = np.arcsin(np.clip(given / np.sqrt(own[..., :, None] * own[..., None, :]), -1, 1))
    noise = 4 / np.pi**2 * np.einsum("c,ijcd,d->ij", s, angle, s) + NOISE**2 * 2 / np.pi
    spread = RATE**2 * np.outer(readout, readout) * noise / np.sqrt(block)
    return np.concatenate([(a[:, :k] + a[:, :k].T + spread).ravel(), a[:, k:].ravel(), -RATE * pair[:k] @ s])


def main():
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    student = 0.2 * jnp.eye(UNITS) + 0.02
    cross = 0.05 * jnp.eye(UNITS) + 0.02 * jax.random.normal(jax.random.key(0), (UNITS, UNITS))
    model, teacher = committees(student, cross, jnp.eye(UNITS), size=INPUTS, key=jax.random.key(1))
    task, rule = CommitteeTask(teacher, noise_scale=NOISE), OnlineSGD(RATE, INPUTS, readout_rate=RATE)
    ts = jnp.linspace(0.0, T1, 101)
    start = np.concatenate([np.ravel(student), np.ravel(cross), np.ones(UNITS)])

    def scipy(method, rtol):
        return solve_ivp(velocity, (0.0, T1), start, method, np.asarray(ts), rtol=rtol, atol=rtol / 100).y.T

    @functools.partial(jax.jit, static_argnums=3)
    def ours(model, task, rule, rtol):
        pid = diffrax.PIDController(rtol=rtol, atol=rtol / 100)
        solution = SoftCommitteeFlow.from_model(model, task, rule, t1=T1, stepsize_controller=pid, max_steps=1024)
        return jax.vmap(solution.evaluate)(ts)

    def flat(state):
        return np.concatenate([np.reshape(x, (len(ts), -1)) for x in (state.student, state.cross, state.readout)], axis=1)

    reference = scipy("DOP853", 1e-13)
    runs, errors = {}, {}
    for rtol in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12):
        name = f"tractax, rtol {rtol:.0e}"
        runs[name] = functools.partial(ours, model, task, rule, rtol)
        errors[name] = np.max(np.abs(flat(runs[name]()) - reference))
    for method in ("LSODA", "DOP853", "RK45"):
        for rtol in (1e-6, 1e-8, 1e-10, 1e-12):
            name = f"SciPy {method}, rtol {rtol:.0e}"
            runs[name] = functools.partial(scipy, method, rtol)
            errors[name] = np.max(np.abs(runs[name]() - reference))
    seconds = median_seconds(runs, repeats=3)

    few = jnp.asarray([T1 / 100])
    tx.train(model, task, rule, few, key=jax.random.key(2))
    began = time.perf_counter()
    jax.block_until_ready(tx.train(model, task, rule, few, key=jax.random.key(3)).model)
    seconds["simulation"], errors["simulation"] = 100 * (time.perf_counter() - began), np.nan

    print(f"{describe_machine()}; K = M = {UNITS}, t = 0..{T1:.0f}\n")
    print("| | error | seconds | the least accurate tractax that is no worse takes | ratio |")
    print("|---|---|---|---|---|")
    for name, value in seconds.items():
        as_good = [s for n, s in seconds.items() if n.startswith("tractax") and not errors[n] > errors[name]]
        own = min(as_good) if as_good else seconds["tractax, rtol 1e-12"]
        print(f"| {name} | {errors[name]:.0e} | {value:.3f} | {own:.3f} | {value / own:.1f} |")


if __name__ == "__main__":
    main()
