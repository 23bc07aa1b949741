"""The tangent kernel against its formula for linear networks, and what it predicts about a gradient step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax.analysis import cosine_similarity, representation_similarity, tangent_kernel
from tractax.deep_linear import gaussian


def test_two_layer_linear_network(getkey):
    model = gaussian((3, 4, 2), scale=0.7, key=getkey())
    x = jax.random.normal(getkey(), (5, 3))
    w1, w2 = (np.asarray(w) for w in model.weights)
    hidden = np.asarray(x) @ w1.T
    # ∂f_a(x)/∂W1 gives (W2 W2ᵀ)_ab x·x', ∂f_a(x)/∂W2 gives δ_ab h·h'.
    expected = np.einsum("ab,ij->iajb", w2 @ w2.T, np.asarray(x @ x.T)) + np.einsum(
        "ab,ij->iajb", np.eye(2), hidden @ hidden.T
    )
    np.testing.assert_allclose(tangent_kernel(model, x), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_predicts_a_small_gradient_step(getkey):
    model = eqx.nn.MLP(2, 3, 8, 1, activation=jnp.tanh, key=getkey())
    x, y = jax.random.normal(getkey(), (4, 2)), jax.random.normal(getkey(), (4, 3))

    def outputs(model):
        return jax.vmap(model)(x)

    gradient = eqx.filter_grad(lambda model: jnp.sum((outputs(model) - y) ** 2) / 2)(model)
    rate = 1e-6
    moved = eqx.apply_updates(model, jax.tree.map(lambda g: -rate * g, gradient))
    change = (outputs(moved) - outputs(model)) / rate
    predicted = -jnp.einsum("iajb,jb->ia", tangent_kernel(model, x), outputs(model) - y)
    np.testing.assert_allclose(change, predicted, rtol=1e-4, atol=1e-5)


class Scalar(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return jnp.sum(self.weight * x)


def test_refuses_what_returns_no_vector():
    with pytest.raises(ValueError, match=r"return a vector for one input; it returned shape \(\) and has 1"):
        tangent_kernel(Scalar(jnp.ones(2)), jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="has 0 trainable arrays"):
        tangent_kernel(eqx.nn.Identity(), jnp.ones((3, 2)))


def test_similarities(getkey):
    hidden = jax.random.normal(getkey(), (4, 3))
    rotation = jnp.linalg.qr(jax.random.normal(getkey(), (3, 3)))[0]
    similarity = representation_similarity(hidden)
    np.testing.assert_allclose(similarity, representation_similarity(hidden @ rotation), atol=1e-13)
    assert float(similarity[1, 2]) == pytest.approx(float(hidden[1] @ hidden[2]), rel=1e-12)
    assert float(cosine_similarity(similarity, 3 * similarity)) == pytest.approx(1.0, rel=1e-14)
    assert float(cosine_similarity(jnp.asarray([1.0, 0.0]), jnp.asarray([-1.0, 1.0]))) == pytest.approx(-(0.5**0.5))
    assert jnp.isnan(cosine_similarity(jnp.zeros(2), jnp.ones(2)))
    with pytest.raises(ValueError, match=r"same shape; got \(2,\) and \(3,\)"):
        cosine_similarity(jnp.ones(2), jnp.ones(3))
