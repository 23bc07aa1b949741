"""Tensor PCA by simulation: how many samples averages take, alone and with gradient flow after them; single iterates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.teacher_student import (
    SphericalFlow,
    SphericalLangevin,
    TensorPCATask,
    UnitVector,
    leading_direction,
    partial_trace,
    partial_trace_variance,
    random_direction,
    spiked_tensor,
)

pytestmark = pytest.mark.slow


def samples_needed(order, size, estimate, *, tensors, steps, above=0.5, read=lambda tensor: tensor):
    """The samples from which on an estimate has a large overlap: medians over eighths of the tensors.

    `read` is what the estimate sees of a tensor, and linear.
    """
    teacher = jnp.eye(size)[0]

    def draw(samples, key):
        return spiked_tensor(teacher, order=order, samples=samples, key=key)

    whole = draw(np.inf, jax.random.key(0))
    spike = read(whole)

    def needed(key):
        noise = read(draw(1.0, key) - whole)

        def halve(_, ends):
            middle = (ends[0] + ends[1]) / 2
            good = jnp.abs(estimate(spike + jnp.exp(-middle / 2) * noise)[0]) > above
            return jnp.where(good, ends[0], middle), jnp.where(good, middle, ends[1])

        middle = jnp.asarray(order / 2 * np.log(size))
        return jnp.exp(jax.lax.fori_loop(0, steps, halve, (middle - 4, middle + 6))[1])

    found = jax.lax.map(needed, jax.random.split(jax.random.key(size), tensors))
    return jnp.median(found.reshape(8, -1), axis=1)


@pytest.mark.parametrize("order", [3, 4])
def test_samples_that_an_average_takes(order):
    """Of both orders they are proportional to the square of the dimension, in the end."""
    options = {"tensors": 64, "steps": 14, "above": 0.9, "read": partial_trace}
    law = tx.scaling(lambda d: samples_needed(order, int(d), leading_direction, **options), (8, 14, 24))
    predicted = tx.scaling(lambda d: d * partial_trace_variance(order, int(d)), (8, 14, 24))
    late = tx.scaling(lambda d: d * partial_trace_variance(order, int(d)), (1e4, 1e5, 1e6))
    assert law.contains(float(predicted.exponent)) and float(late.exponent) == pytest.approx(2.0, abs=1e-3)
    assert float(law.interval[1] - law.interval[0]) < 0.6


def test_samples_that_gradient_flow_from_an_average_takes():
    def ascent(tensor):
        start = UnitVector(leading_direction(partial_trace(tensor)))
        run = tx.train(start, TensorPCATask(tensor), SphericalFlow(), [20.0], observe=lambda model: model.direction)
        return run.observed[0]

    law = tx.scaling(lambda d: samples_needed(3, int(d), ascent, tensors=40, steps=8), (8, 16, 32))
    assert law.contains(1.5) and not law.contains(2.0)


def test_last_iterates_are_random_and_averages_are_not():
    size, runs = 4, 32
    task = TensorPCATask(spiked_tensor(jnp.eye(size)[0], order=3, samples=8.0, key=jax.random.key(1)))
    rule, ts = SphericalLangevin(1.0, 0.02), jnp.linspace(1.0, 2000.0, 2000)

    def run(key):
        start, noise = jax.random.split(key)
        model = random_direction(size, key=start)
        path = tx.train(model, task, rule, ts, observe=lambda model: model.direction, key=noise).observed
        return path[-1], jnp.mean(path, axis=0)

    last, average = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), runs))
    shown = leading_direction(partial_trace(task.tensor))
    # Squared overlaps of random directions have the mean 1/d.
    squares = (last @ shown) ** 2
    assert abs(float(jnp.mean(squares)) - 1 / size) < 3 * float(jnp.std(squares)) / runs**0.5
    overlaps = average @ shown / jnp.linalg.norm(average, axis=1)
    assert float(jnp.mean(overlaps)) > 0.95 and float(jnp.min(overlaps)) > 0.85
