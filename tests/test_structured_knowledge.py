"""Structured knowledge: reference values, entropy by quadrature, growth against SciPy, the empty action, refusals."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from toys import MODEL, TASK

import tractax as tx
from tractax.rules import EntropyTask, KnowledgeFlow, KnowledgeLayer, decision_entropy, tensor_net
from tractax.special import cosh_integral


def test_reference_values():
    assert float(decision_entropy(1.0)) == pytest.approx(0.8399415379831692, rel=1e-15)
    assert 2 * (np.euler_gamma + float(cosh_integral(1.0))) == pytest.approx(1.6757338819604164, rel=1e-15)


def test_entropy_is_its_definition_and_that_of_shannon():
    for z in (-7.0, -1.3, 0.4, 3.0):
        by_parts, _ = scipy.integrate.quad(
            lambda s: -s * scipy.special.expit(s) * scipy.special.expit(-s) / np.log(2), -60, z, epsabs=1e-13
        )
        assert float(decision_entropy(z)) == pytest.approx(by_parts, abs=1e-12)
        d = scipy.special.expit(z)
        shannon = -(d * np.log2(d) + (1 - d) * np.log2(1 - d))
        assert float(decision_entropy(z)) == pytest.approx(shannon, rel=1e-12)


def test_entropy_of_extreme_logits():
    found = decision_entropy(jnp.asarray([0.0, 700.0, -700.0, jnp.inf, -1e300]))
    np.testing.assert_allclose(found, [1.0, 701 * np.exp(-700.0) / np.log(2), found[1], 0.0, 0.0], rtol=1e-12)
    slopes = jax.vmap(jax.grad(decision_entropy))(jnp.asarray([1.5, -1.5, 800.0]))
    expected = -1.5 * scipy.special.expit(1.5) * scipy.special.expit(-1.5) / np.log(2)
    np.testing.assert_allclose(slopes, [expected, -expected, 0.0], rtol=1e-14)


@pytest.mark.slow
def test_cosh_integral():
    xs = [1e-8, 0.1, 1.0, 7.0, 39.9, 40.1, 55.0, 300.0, 700.0]
    with mpmath.workdps(40):
        expected = [float(mpmath.chi(x) - mpmath.euler - mpmath.log(x)) for x in map(mpmath.mpf, xs)]
    found = cosh_integral(jnp.asarray([*xs, *(-x for x in xs)]))
    np.testing.assert_allclose(found, expected * 2, rtol=1e-13)
    slopes = jax.vmap(jax.grad(cosh_integral))(jnp.asarray([0.0, 1e-9, -2.0, 50.0]))
    exact = [0.0, 5e-10, -(np.cosh(2) - 1) / 2, (np.cosh(50) - 1) / 50]
    np.testing.assert_allclose(slopes, exact, rtol=1e-13)
    assert float(cosh_integral(jnp.asarray(3.0, jnp.float32))) == pytest.approx(float(cosh_integral(3.0)), rel=1e-6)


UNIT = EntropyTask([[1.0]])


@jax.jit
def _unit(start, t):
    """The state at time t of one unit with κ = 1."""
    return KnowledgeFlow(UNIT, start[None, None], jnp.asarray([1 / np.log(2)])).evaluate(t)


def _logit(start, t):
    return float(_unit(jnp.asarray(start), jnp.asarray(t)).logits[0, 0])


def test_growth_against_scipy():
    def implicit(z):
        return 2 * (np.log(z) + scipy.special.shichi(z)[1])

    for start, t in ((0.7, 6.0), (-0.7, 6.0), (1e-3, 90.0), (2.0, 2e6)):
        z = _logit(start, t)
        assert np.sign(z) == np.sign(start)
        assert implicit(abs(z)) - implicit(abs(start)) == pytest.approx(t / np.log(2), rel=1e-12)


def test_late_growth_is_logarithmic():
    for t in (1e8, 1e100, 1e300):
        # e^z/z (1 + 1/z + 2/z² + …) = t/ln 2.
        z = _logit(0.5, t)
        assert z - np.log(z) + np.log1p(1 / z + 2 / z**2) == pytest.approx(np.log(t / np.log(2)), abs=20 / z**3 + 1e-9)
    assert _logit(0.5, jnp.inf) == jnp.inf and float(_unit(jnp.asarray(0.5), jnp.asarray(jnp.inf)).entropy) == 0.0


def test_degenerate_logits():
    assert _logit(0.0, 1e5) == 0.0 and float(_unit(jnp.asarray(0.0), jnp.asarray(1e5)).entropy) == 1.0
    # Far from saturation: dz/dt = z/(4 ln 2).
    assert _logit(1e-300, 1.0) == pytest.approx(1e-300 * np.exp(0.25 / np.log(2)), rel=1e-12)
    assert _logit(900.0, 1e9) == 900.0


def test_limit():
    layer = KnowledgeLayer([[0.0, 0.0], [1.0, -1.0]])
    limit = KnowledgeFlow.from_model(layer, EntropyTask([[1.0, 0.0], [0.0, 0.0]])).limit()
    np.testing.assert_array_equal(limit.logits, [[0.0, jnp.inf], [0.0, 0.0]])
    assert float(limit.entropy) == 1.5


@pytest.mark.slow
def test_several_units_and_inputs_in_full():
    run = tx.systems.get("structured_knowledge").run()
    assert float(tx.residual(run.solution, [0.0, 0.3, 20.0]).worst) < 1e-12
    assert jnp.all(jnp.sign(run.solution.evaluate(50.0).logits) == jnp.sign(run.solution.initial))
    still = KnowledgeFlow.from_model(run.model, EntropyTask([[0.0, 0.0]]))
    np.testing.assert_array_equal(still.evaluate(jnp.inf).logits, 0.0)
    model, task = run.model, run.task
    np.testing.assert_allclose(task.loss(model), np.mean(np.sum(decision_entropy(task.inputs @ model.weights.T), 1)))


@pytest.mark.slow
def test_steps_agree_to_first_order():
    fit = tx.systems.get("knowledge_steps").measure()
    assert fit.contains(1.0) and float(fit.exponent) == pytest.approx(1, abs=0.1)


def test_tensor_net_depends_on_the_ends_only():
    def sums(power, steps):
        return float(tensor_net(-1.0 + 3.0 * jnp.linspace(0, 1, steps + 1) ** power))

    ends = np.logaddexp(0, 2.0) - np.logaddexp(0, -1.0) - float(decision_entropy(2.0) - decision_entropy(-1.0))
    for power in (1, 3):
        errors = [abs(sums(power, steps) - ends) for steps in (200, 400)]
        assert errors[1] < 0.01 and errors[0] / errors[1] == pytest.approx(2, rel=0.02)


def test_the_action_selects_no_dynamics():
    # Its functional derivative vanishes on any path, up to the discretisation.
    times = jnp.linspace(0, 1, 401)

    def action(path):
        middle = (path[1:] + path[:-1]) / 2
        return jnp.sum(middle * jax.nn.sigmoid(middle) * jax.nn.sigmoid(-middle) * jnp.diff(path))

    for path in (jnp.sin(5 * times), 2 * times**2 - 1):
        inner = jax.grad(action)(path)[1:-1] * 400
        assert float(jnp.max(jnp.abs(inner))) < 1e-3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KnowledgeFlow.from_model(MODEL, EntropyTask([[1.0, 0.0]])), "`model` must be a KnowledgeLayer"),
        (lambda: KnowledgeFlow.from_model(KnowledgeLayer([[1.0]]), TASK), "`task` must be an EntropyTask"),
        (lambda: KnowledgeFlow.from_model(KnowledgeLayer([[1.0]]), EntropyTask([[1.0, 0.0]])), "must have 2 inputs"),
        (
            lambda: KnowledgeFlow.from_model(KnowledgeLayer([[1.0, 0.0]]), EntropyTask([[1.0, 0.0], [1.0, 1.0]])),
            "orthogonal inputs: FAILS",
        ),
        (
            lambda: KnowledgeFlow.from_model(
                KnowledgeLayer([[1.0]]), EntropyTask([[1.0]]), tx.GradientFlow(weight_decay=0.1)
            ),
            "no weight decay: FAILS",
        ),
        (
            lambda: KnowledgeFlow.from_model(KnowledgeLayer([[1.0]]), EntropyTask([[1.0]]), tx.GradientDescent(0.1)),
            "rule",
        ),
        (lambda: KnowledgeLayer([[jnp.nan]]), "`weights` must be finite"),
        (lambda: tensor_net(1.0), "`logits` must have a leading axis of steps"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
