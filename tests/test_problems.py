"""The common checks on every solved problem."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import PROBLEMS, Problem

import tractax as tx


def _parameter(problem, slow):
    return pytest.param(problem, id=problem.name, marks=[pytest.mark.slow] if slow else [])


def _firsts(group_of):
    """The first problem of every group, and the others as slow: what a group can do, one problem shows."""
    seen = set()
    for problem in PROBLEMS:
        group = group_of(problem.name.partition("/")[0])
        yield _parameter(problem, problem.slow or group in seen)
        if not problem.slow:
            seen.add(group)


FAMILIES = {system.name: system.family for system in tx.systems.catalogue()}
one_problem = pytest.mark.parametrize("problem", list(_firsts(lambda theory: theory)))
# Derivatives, batches and other precisions of integrated solutions take long to compile.
one_of_a_family = pytest.mark.parametrize("problem", list(_firsts(FAMILIES.get)))


@pytest.fixture(scope="module")
def run_of():
    """Runs, built once each."""
    made = {}

    def get(problem: Problem):
        if problem.name not in made:
            # As one program: what is built of many small ones takes long to compile.
            made[problem.name] = eqx.filter_jit(problem.run)(jnp.asarray(problem.knob))
        return made[problem.name]

    return get


@eqx.filter_jit
def flat(tree):
    """All numbers of a state, as one array of floats."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))])


def close(a, b, tolerance):
    a, b = np.asarray(flat(a)), np.asarray(flat(b))
    assert a.shape == b.shape
    assert np.all(np.isfinite(a)) and np.all(np.isfinite(b))
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) + tolerance * 1e-3


@eqx.filter_jit
def reduced(run):
    return run.solution.reduce(run.model)


@eqx.filter_jit
def limit(solution):
    return solution.limit()


def test_bank_is_sound():
    names = [problem.name for problem in PROBLEMS]
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} <= set(FAMILIES)


@one_problem
def test_initial_value(problem, run_of):
    run = run_of(problem)
    close(run.solution.evaluate(0.0), reduced(run), 1e-12)


@one_problem
def test_residual(problem, run_of):
    if problem.residual is None:
        assert problem.run(jnp.asarray(problem.knob)).solution.kind == "exact"
        return
    run = run_of(problem)
    last = float(run.ts[-1])
    ts = jnp.asarray([0.0, 1e-9, 1e-3 * last, 0.1 * last, 0.3 * last, 0.6 * last, last])
    assert float(tx.residual(run.solution, ts).worst) < problem.residual


@one_problem
def test_agreement_with_flow(problem, run_of):
    run = run_of(problem)
    trajectory = run.simulate()
    assert trajectory.result == tx.RESULTS.successful
    assert float(tx.compare(run.solution, trajectory).worst) < problem.agreement


@one_problem
def test_late_times_and_limit(problem, run_of):
    solution = run_of(problem).solution
    horizon = float(solution.t1)
    for t in (1e3, 1e6, 1e12):
        if t <= horizon:
            assert np.all(np.isfinite(flat(solution.evaluate(t))))
        else:
            with pytest.raises(ValueError, match="horizon"):
                solution.evaluate(t)
    if problem.late is None:
        return
    for t in (problem.late, min(1e9, horizon), horizon):
        close(solution.evaluate(t), limit(solution), 1e-6)


@one_of_a_family
def test_gradient(problem):
    def summary(knob):
        run = problem.run(knob)
        state = flat(run.solution.evaluate(run.ts[len(run.ts) // 3]))
        return jnp.sum(state * jnp.cos(jnp.arange(state.size, dtype=state.dtype)))

    knob = jnp.asarray(problem.knob)
    # Larger steps leave room for the rounding of integrated solutions; the error is of fourth order.
    step = 1e-3 * problem.knob
    values = jax.jit(jax.vmap(summary))(knob + step * jnp.asarray([-2.0, -1.0, 1.0, 2.0]))
    expected = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    assert float(jax.jit(jax.grad(summary))(knob)) == pytest.approx(float(expected), rel=1e-6, abs=1e-8)


@one_of_a_family
def test_vmap_over_members_and_times(problem):
    ts = problem.run(jnp.asarray(problem.knob)).ts[::7]
    knobs = problem.knob * jnp.asarray([1.0, 1.3])

    @jax.jit
    def states(knob):
        return flat(jax.vmap(problem.run(knob).solution.evaluate)(ts))

    together = jax.jit(jax.vmap(states))(knobs)
    for i in range(2):
        close(together[i], states(knobs[i]), 1e-10)


@one_problem
def test_jit_compiles_once(problem, run_of):
    solution = run_of(problem).solution
    traces = 0

    @eqx.filter_jit
    def evaluate(solution, t):
        nonlocal traces
        traces += 1
        return solution.evaluate(t)

    for t in (0.0, 0.5, min(1e3, float(solution.t1))):
        jax.block_until_ready(flat(evaluate(solution, jnp.asarray(t))))
    assert traces == 1


@one_of_a_family
def test_float32(problem, run_of):
    reference = run_of(problem)
    run = problem.run(jnp.asarray(problem.knob, jnp.float32))
    state = run.solution.evaluate(run.ts[10])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array)))
    np.testing.assert_allclose(flat(state), flat(reference.solution.evaluate(reference.ts[10])), rtol=2e-3, atol=2e-3)
    for t in (0.0, 1e-6, 1e3, 1e6, 1e12):
        if t <= float(run.solution.t1):
            assert np.all(np.isfinite(flat(run.solution.evaluate(jnp.asarray(t, jnp.float32)))))
