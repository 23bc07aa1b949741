"""Weight decay is a penalty in the loss, whatever the rule; theories honour it or refuse it."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import PROBLEMS

import tractax as tx
from tractax import rules
from tractax.deep_linear import DeepLinear, GaussianMapTask, PerturbationLearning, RegressionTask
from tractax.rules import (
    SPSA,
    BilinearDescent,
    BilinearGame,
    CentralFlow,
    CoupledFlow,
    CurlDescent,
    GameDescent,
    GameFlow,
    NodePerturbation,
    Players,
    QuadraticDescent,
    QuadraticMomentum,
    QuadraticSGD,
    ScheduledDescent,
    TripleMomentum,
    WeightPerturbation,
)
from tractax.systems.teacher_student._noisy_perceptron import noisy_case
from tractax.teacher_student import (
    CurlDescentScalar,
    GaussianRegression,
    LinearModel,
    OnePassLeastSquares,
    OnePassRecursion,
    SphericalFlow,
    TwoLayerLinear,
    TwoScaleRegressionFlow,
    VectorTask,
    curl_invariants,
    curl_stability_matrix,
)
from tractax.two_layer import ProductDescent, TwoLayerNetwork

GAMMA = 0.3
INPUTS = jnp.asarray([[1.0, 0.4], [-0.6, 1.1], [0.9, -0.7], [0.2, 0.5]])
TARGETS = jnp.asarray([0.3, -0.5, 0.2, 0.9])


class Unit(eqx.Module):
    weights: jax.Array

    def __call__(self, x):
        return jnp.tanh(self.weights @ x.astype(self.weights.dtype))[None]


class Examples(tx.AbstractFiniteTask):
    """Half of the mean squared error of four examples, and a penalty."""

    penalty: float = eqx.field(static=True, default=0.0)

    @property
    def examples(self):
        return 4

    def loss(self, model):
        return self.batch_loss(model, jnp.arange(4))

    def batch_loss(self, model, batch):
        outputs, targets = jax.vmap(model)(INPUTS[batch])[:, 0], TARGETS[batch]
        loss = jnp.mean((outputs - targets.astype(outputs.dtype)) ** 2) / 2
        return loss + self.penalty / 2 * jnp.sum(model.weights**2) if self.penalty else loss


MODEL, STATIC = eqx.partition(Unit(jnp.asarray([0.8, 0.5])), eqx.is_inexact_array)
PLAIN, PENALISED = (tx.Objective(Examples(penalty), STATIC) for penalty in (0.0, GAMMA))
BATCHES = jnp.arange(4).reshape(2, 2)
SEARCH = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=8))


def gradient(optimiser, **options):
    return lambda gamma: tx.GradientDescent(0.1, optimiser, weight_decay=gamma, **options)


STEPS = {
    "descent": gradient(optax.sgd),
    "mini-batches": gradient(optax.sgd, batch_size=3),
    "adam": gradient(optax.adam),
    "line search": gradient(SEARCH),
    "lion": gradient(optax.lion),
    "diffgrad": gradient(rules.diffgrad),
    "spam": gradient(rules.spam),
    "lanton": gradient(rules.lanton),
    "rmsprop": gradient(rules.scalar_rmsprop),
    "drift adjusted": gradient(rules.drift_adjusted()),
    "scheduled": lambda gamma: ScheduledDescent(jnp.asarray([0.3, 0.1]), weight_decay=gamma),
    "reshuffled": lambda gamma: rules.ReshuffledDescent(0.1, BATCHES, weight_decay=gamma),
    "heavy ball": lambda gamma: rules.HeavyBall(0.1, weight_decay=gamma),
    "nesterov": lambda gamma: rules.Nesterov(0.1, weight_decay=gamma),
    "triple momentum": lambda gamma: TripleMomentum(2.0, 0.2, weight_decay=gamma),
    "mirror": lambda gamma: rules.MirrorDescent(0.1, rules.Entropy(), weight_decay=gamma),
}
FLOWS = {
    "flow": lambda gamma: tx.GradientFlow(2.0, gamma, [0.7]),
    "modified": lambda gamma: rules.ModifiedFlow(0.1, 4, gamma),
    "principal": lambda gamma: rules.PrincipalFlow(0.1, weight_decay=gamma),
    "reshuffled": lambda gamma: rules.ReshuffledFlow(0.1, BATCHES, weight_decay=gamma),
    "adam": lambda gamma: rules.AdamFlow(0.1, eps_root=0.1, weight_decay=gamma),
    "mirror": lambda gamma: rules.MirrorFlow(rules.HyperbolicEntropy(), weight_decay=gamma),
    "curl": lambda gamma: CurlDescent([[1.0, -1.0]], weight_decay=gamma),
    "central": lambda gamma: CentralFlow(5.0, weight_decay=gamma),
    "rmsprop central": lambda gamma: rules.RMSPropCentralFlow(0.8, 0.9, 0.1, weight_decay=gamma),
    "langevin": lambda gamma: rules.LangevinFlow(0.1, gamma),
    "sgd": lambda gamma: rules.SGDFlow(0.1, 4, 2, weight_decay=gamma),
    "inertia": lambda gamma: rules.InertialFlow(1.0, 1.0, gamma),
    "heavy ball": lambda gamma: rules.HeavyBallFlow(0.1, weight_decay=gamma),
    "nesterov": lambda gamma: rules.NesterovFlow(0.1, order=2, weight_decay=gamma),
}
PERTURBATIONS = {
    "weights": lambda gamma: WeightPerturbation(0.1, 0.01, batch_size=3, weight_decay=gamma),
    "spsa": lambda gamma: SPSA(0.1, 0.01, weight_decay=gamma),
    "nodes": lambda gamma: NodePerturbation(0.1, 0.01, batch_size=3, weight_decay=gamma),
}


SLOW = {"reshuffled", "principal", "central", "rmsprop central", "modified", "heavy ball", "nesterov", "sgd", "lanton"}
SLOW |= {"spam", "diffgrad", "drift adjusted", "langevin"}


def named(rules):
    """The names of rules, most of which take the same road to the penalty as another one does."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in rules]


def flat(tree):
    return ravel_pytree(tree)[0]


def differ(a, b):
    return float(jnp.max(jnp.abs(flat(a) - flat(b)))) > 1e-3


@pytest.mark.parametrize("name", named(STEPS))
def test_steps_follow_the_penalised_loss(name):
    def train(gamma, objective):
        rule, params = STEPS[name](gamma), MODEL
        state = rule.init(params)
        for key in jax.random.split(jax.random.key(0), 3):
            params, state = rule.step(params, state, objective, key=key if rule.random else None)
        return params

    found = train(GAMMA, PLAIN)
    np.testing.assert_allclose(flat(found), flat(train(0.0, PENALISED)), rtol=1e-12)
    assert differ(found, train(0.0, PLAIN))


@pytest.mark.parametrize("name", named(FLOWS))
def test_flows_follow_the_penalised_loss(name):
    def velocity(gamma, objective):
        rule = FLOWS[name](gamma)
        return rule.vector_field(0.4, rule.init(MODEL), objective)

    found = velocity(GAMMA, PLAIN)
    np.testing.assert_allclose(flat(found), flat(velocity(0.0, PENALISED)), rtol=1e-9, atol=1e-12)
    assert differ(found, velocity(0.0, PLAIN))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_decay_is_free_of_perturbation_noise(name):
    def step(gamma):
        return PERTURBATIONS[name](gamma).step(MODEL, None, PLAIN, key=jax.random.key(1))[0].weights

    np.testing.assert_allclose(step(GAMMA), step(0.0) - 0.1 * GAMMA * MODEL.weights, rtol=1e-14)


class PenalisedGame(BilinearGame):
    def losses(self, model):
        first, second = super().losses(model)
        penalties = (GAMMA / 2 * jnp.sum(x**2) for x in (model.first, model.second))
        return first + next(penalties), second + next(penalties)


def test_games_follow_the_penalised_losses():
    matrix, players = [[1.0, -0.4], [0.3, 0.9]], Players(jnp.asarray([0.6, -0.2]), jnp.asarray([0.3, 1.0]))
    plain, penalised = (tx.Objective(game(matrix), Players(None, None)) for game in (BilinearGame, PenalisedGame))

    def step(gamma, objective):
        return GameDescent(0.2, alternating=True, weight_decay=gamma).step(players, None, objective, key=None)[0]

    def velocity(gamma, objective):
        return GameFlow(0.2, alternating=True, weight_decay=gamma).vector_field(0.0, players, objective)

    for move in (step, velocity):
        np.testing.assert_allclose(flat(move(GAMMA, plain)), flat(move(0.0, penalised)), rtol=1e-13)
        assert differ(move(GAMMA, plain), move(0.0, plain))


@pytest.mark.slow
def test_oscillations_of_the_penalised_loss():
    model = eqx.combine(MODEL, STATIC)
    found = CentralFlow(5.0, weight_decay=GAMMA).oscillation(model, PLAIN.task)
    expected = CentralFlow(5.0).oscillation(model, PENALISED.task)
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-9)


def test_decay_under_jit_vmap_and_in_single_precision():
    model = jax.tree.map(lambda x: x.astype(jnp.float32), eqx.combine(MODEL, STATIC))

    def train(gamma):
        return tx.train(model, Examples(), tx.GradientDescent(0.1, weight_decay=gamma), [0.0, 0.3]).model.weights

    together = jax.jit(jax.vmap(train))(jnp.asarray([0.0, GAMMA]))
    assert together.dtype == jnp.float32
    np.testing.assert_allclose(together[1], train(GAMMA), rtol=1e-6)
    assert differ(together[0], together[1])


@pytest.mark.parametrize("build", [*STEPS.values(), *FLOWS.values(), *PERTURBATIONS.values()])
def test_negative_decay_is_refused(build):
    with pytest.raises(ValueError, match="`weight_decay` must be non-negative"):
        build(-0.1)


LINE = DeepLinear((jnp.asarray([[-1.0, 0.8]]),))
LINE_TASK = RegressionTask(jnp.asarray([[1.5, 0.4], [-0.6, 1.1], [0.9, -0.7]]), jnp.asarray([1.0, -0.5, 0.3]))


@pytest.mark.parametrize(
    ("theory", "rule"),
    [
        pytest.param(QuadraticDescent, tx.GradientDescent(0.2, weight_decay=GAMMA), marks=pytest.mark.slow),
        (QuadraticMomentum, TripleMomentum(3.0, 0.3, weight_decay=GAMMA)),
        pytest.param(QuadraticSGD, tx.GradientDescent(0.2, weight_decay=GAMMA), marks=pytest.mark.slow),
    ],
)
def test_theories_that_know_of_the_decay(theory, rule):
    solution = theory.from_model(LINE, LINE_TASK, rule)
    params, static = eqx.partition(LINE, eqx.is_inexact_array)
    objective, state = tx.Objective(LINE_TASK, static), rule.init(params)
    for _ in range(4):
        params, state = rule.step(params, state, objective, key=None)
    expected = solution.reduce(eqx.combine(params, static))
    np.testing.assert_allclose(flat(solution.evaluate(4 * rule.time_per_step)), flat(expected), rtol=1e-11)


@pytest.mark.slow
def test_principal_flow_with_decay():
    rule = rules.PrincipalFlow(0.2, weight_decay=GAMMA)
    solution = QuadraticDescent.from_model(LINE, LINE_TASK, rule)
    assert float(tx.residual(solution, jnp.asarray([0.0, 0.3])).worst) < 1e-12
    run = tx.train(LINE, LINE_TASK, rule, [0.0, 1.0], observe=solution.reduce)
    assert float(tx.compare(solution, run).worst) < 1e-5


def refusals():
    descent = tx.GradientDescent(0.1, weight_decay=GAMMA)
    batches = tx.GradientDescent(0.1, batch_size=1, weight_decay=GAMMA)
    gaussian, weights = GaussianRegression(jnp.ones(2), jnp.ones(2), 0.1), LinearModel(jnp.zeros(2))
    for theory in (OnePassLeastSquares, OnePassRecursion):
        yield lambda theory=theory: theory.from_model(weights, gaussian, batches)
    one = jnp.ones(1)
    yield lambda: TwoScaleRegressionFlow(one, one / 2, one, 0.1, rule=descent)
    yield lambda: tx.teacher_student.NoisyPerceptron.from_model(*noisy_case(20)[:2], batches, t1=1.0)
    product = TwoLayerNetwork([[0.5], [0.0]], [0.4, 0.0], "linear")
    yield lambda: ProductDescent.from_model(product, RegressionTask(jnp.ones((1, 1)), jnp.ones((1, 1))), descent)
    for rule in (descent, *(build(GAMMA) for build in PERTURBATIONS.values())):
        rule = (
            NodePerturbation(0.1, 0.1, batch_size=1, weight_decay=GAMMA) if isinstance(rule, NodePerturbation) else rule
        )
        yield lambda rule=rule: PerturbationLearning.from_model(LINE, GaussianMapTask(jnp.ones((1, 2))), rule)
    curl, scalar = CurlDescent((-1.0, 1.0), weight_decay=GAMMA), TwoLayerLinear(jnp.ones((1, 1)), jnp.ones(1))
    yield lambda: CurlDescentScalar.from_model(scalar, VectorTask(jnp.ones(1)), curl)
    yield lambda: curl_invariants(scalar, curl)
    yield lambda: curl_stability_matrix(scalar, curl)
    for rule in (GameDescent(0.1, weight_decay=GAMMA), GameFlow(0.1, weight_decay=GAMMA)):
        yield lambda rule=rule: BilinearDescent.from_model(Players(one, one), BilinearGame([[1.0]]), rule)
    river = rules.RiverPoint(0.0, 0.0), rules.RiverValley(1.0, 0.1, 0.1)
    yield lambda: rules.RiverDescent.from_model(*river, ScheduledDescent(jnp.ones(1), weight_decay=GAMMA))
    valley = rules.ValleyPoint(0.0, 7.0, 1.0), rules.SharpeningValley(0.5, 0.3, 2.0)
    yield lambda: rules.SharpeningValleyFlow.from_model(*valley, CentralFlow(0.25, weight_decay=GAMMA))


@pytest.mark.parametrize("call", list(refusals()))
def test_theories_that_do_not(call):
    with pytest.raises(ValueError, match=r"`rule` must have no weight decay for"):
        call()


def test_every_learner_of_a_population_decays():
    laplacian = jnp.asarray([[1.0, -1.0], [-1.0, 1.0]])
    learners = jax.vmap(DeepLinear)((jnp.asarray([[[1.0]], [[-2.0]]]),))
    params, static = eqx.partition(learners, eqx.is_inexact_array)
    objective = tx.Objective(tx.deep_linear.LinearTask(jnp.ones((1, 1))), static)
    plain, decayed = (CoupledFlow(laplacian, weight_decay=g).vector_field(0.0, params, objective) for g in (0.0, GAMMA))
    change = decayed.weights[0] - plain.weights[0]
    np.testing.assert_allclose(change, -GAMMA * learners.weights[0], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_no_theory_ignores_it(problem):
    run = problem.run(jnp.asarray(problem.knob))
    if not hasattr(run.rule, "weight_decay"):
        # Decay would do nothing to weights of fixed norm.
        assert isinstance(run.rule, SphericalFlow)
        return
    decayed = eqx.tree_at(lambda rule: rule.weight_decay, run.rule, run.rule.weight_decay + 0.7)
    try:
        build = type(run.solution).from_model
        wanted = {"t1", "symmetry"} & set(inspect.signature(build).parameters)
        options = {name: getattr(run.solution, name) for name in wanted}
        solution = build(run.model, run.task, decayed, **options)
    except ValueError as refusal:
        assert "decay" in str(refusal) or "equal rates" in str(refusal)
        return
    t = run.ts[len(run.ts) // 2]
    assert differ(solution.evaluate(t), run.solution.evaluate(t))
