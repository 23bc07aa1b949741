import jax
import jax.numpy as jnp

from tractax.systems import Run
from tractax.teacher_student import (
    HermiteLink,
    MixedSingleIndexFlow,
    SingleIndexFlow,
    SingleIndexTask,
    SphericalFlow,
    single_indices,
)

from ._problem import Problem


def _run(knob, *, student, teacher, orders=None, t1=6.0, mixed=False, time_constant=1.0):
    """The knob is the initial overlap."""
    links = [HermiteLink(jnp.asarray(link, knob.dtype), orders) for link in (student, teacher)]
    model, teacher = single_indices(knob, size=4, student=links[0], teacher=links[1], key=jax.random.key(0))
    task, rule = SingleIndexTask(teacher), SphericalFlow(jnp.asarray(time_constant, knob.dtype))
    if mixed:
        solution = MixedSingleIndexFlow.from_model(model, task, rule, t1=t1)
    else:
        solution = SingleIndexFlow.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, t1, 21).astype(knob.dtype))


PROBLEMS = (
    Problem(
        "single_index/order_3",
        lambda x: _run(x, student=[1.4], teacher=[0.5], orders=(3,), time_constant=0.7),
        0.3,
    ),
    Problem("single_index/order_1", lambda x: _run(x, student=[1.4], teacher=[0.5], orders=(1,)), -0.3),
    # What decays does so as a power of time, so that no late time reaches the limit.
    Problem(
        "single_index/order_4_decaying",
        lambda x: _run(x, student=[1.4], teacher=[-0.5], orders=(4,)),
        -0.6,
        late=None,
    ),
    Problem("single_index/order_2", lambda x: _run(x, student=[1.4], teacher=[0.5], orders=(2,)), 0.05),
    Problem(
        "single_index/mixed",
        lambda x: _run(x, student=[0.3, 0.5, -0.4, 0.2], teacher=[0.1, 0.6, 0.7, 0.5], mixed=True),
        -0.6,
        residual=1e-7,
        late=None,
    ),
)
