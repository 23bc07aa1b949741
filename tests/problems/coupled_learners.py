import jax
import jax.numpy as jnp

from tractax.rules import CoupledFlow
from tractax.systems import Run
from tractax.teacher_student import CoupledLearners, Point, QuadraticTask, graph_laplacian

from ._problem import Problem


def _run(knob, adjacency, hessian, coupling=0.5, t1=5.0):
    """Without noise, one simulation has the moments itself; the knob scales the initial positions."""
    dtype = knob.dtype
    with jax.ensure_compile_time_eval():
        rule = CoupledFlow(graph_laplacian(jnp.asarray(adjacency, dtype)), coupling)
        task = QuadraticTask(jnp.asarray(hessian, dtype), jnp.linspace(-1, 1, len(hessian)).astype(dtype))
    model = Point(knob * jax.random.normal(jax.random.key(0), (len(adjacency), len(hessian))).astype(dtype))
    solution = CoupledLearners.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, t1, 21).astype(dtype))


PROBLEMS = (
    Problem(
        "coupled_learners/chain",
        lambda x: _run(x, [[0, 2, 0], [2, 0, 1], [0, 1, 0]], [[1.0, 0.3], [0.3, 0.5]]),
        1.3,
        late=300.0,
    ),
    # Two learners apart from the rest, and a direction without curvature: modes of rate zero.
    Problem(
        "coupled_learners/two_graphs",
        lambda x: _run(x, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 3], [0, 0, 3, 0]], [[1.0, 0.0], [0.0, 0.0]]),
        1.3,
        late=300.0,
    ),
)
