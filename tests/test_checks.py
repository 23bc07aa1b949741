"""Errors that name the argument, what was expected and what came; and assumptions that say how far they fail."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax import core

SYMMETRIC = np.asarray([[2.0, 1.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (core.as_float_array, "text", "`x` must be an array of numbers; got str"),
        (core.as_float_array, None, "`x` must be an array of numbers; got NoneType"),
        (core.as_float_array, [[1.0], [1.0, 2.0]], "`x` must be an array of numbers; got list"),
        (core.as_float_array, 1j, "`x` must be real; got dtype complex128"),
        (core.check_finite, [1.0, np.nan], "`x` must be finite; it contains NaN or infinity"),
        (core.check_matrix, np.ones(3), r"`x` must have shape \(any, any\) without empty axes; got \(3,\)"),
        (core.check_matrix, np.ones((3, 0)), r"without empty axes; got \(3, 0\)"),
        (core.check_matrix, np.full((2, 2), np.inf), "`x` must be finite"),
        (core.check_positive, 0.0, "`x` must be positive; got 0.0"),
        (core.check_positive, np.asarray([1.0, -2.0]), r"`x` must be positive; got \[ 1. -2.\]"),
        (core.check_positive, np.nan, "`x` must be finite"),
        (partial(core.check_finite, scalar=True), [1.0], r"`x` must be one number; got shape \(1,\)"),
        (partial(core.check_positive, scalar=True), np.ones((2, 3)), r"`x` must be one number; got shape \(2, 3\)"),
        (core.check_indices, "text", "`x` must be whole numbers from 0; got str"),
        (core.check_indices, [[0, 1]], r"whole numbers from 0, in an array of 1 axes; got shape \(1, 2\) of int64"),
        (core.check_indices, [0.0, 1.0], "of float64"),
        (core.check_indices, [0, -1], r"`x` must be whole numbers from 0; got \[ 0 -1\]"),
        (partial(core.check_indices, below=2), [0, 2], r"`x` must be whole numbers from 0 to 1; got \[0 2\]"),
        (core.check_psd, np.ones((2, 3)), r"`x` must be square; got shape \(2, 3\)"),
        (core.check_psd, [[1.0, 0.5], [0.0, 1.0]], r"`x` must be symmetric; .* reaches 0.5"),
        (core.check_psd, [[1.0, 2.0], [2.0, 1.0]], "positive semi-definite; its lowest eigenvalue is -1.0"),
    ],
)
def test_messages(check, value, message):
    with pytest.raises(ValueError, match=message):
        check("x", value)


def test_what_passes_is_returned_as_floats():
    for value in (3, True, np.float32(3), [3], np.asarray([3], np.uint8)):
        assert jnp.issubdtype(core.as_float_array("x", value).dtype, jnp.floating)
    assert core.as_float_array("x", np.float32(3)).dtype == jnp.float32
    assert float(core.check_positive("x", 0.0, zero=True)) == 0.0
    np.testing.assert_array_equal(core.check_psd("x", SYMMETRIC), SYMMETRIC)
    np.testing.assert_array_equal(core.check_psd("x", np.zeros((2, 2))), 0.0)
    # Rounding makes a singular covariance neither symmetric nor positive to the last bit.
    a = np.random.default_rng(0).normal(size=(8, 3))
    core.check_psd("x", a @ a.T)
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        core.check_psd("x", SYMMETRIC, 3)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_traced_values_are_checked_at_run_time(transform):
    check = transform(lambda x: core.check_positive("rate", x))
    np.testing.assert_array_equal(check(jnp.ones(2)), 1.0)
    with pytest.raises(Exception, match="`rate` must be positive; got a traced value"):
        jax.block_until_ready(check(jnp.asarray([1.0, -1.0])))


def test_keys():
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        core.check_key(key)
        jax.jit(core.check_key)(key)
    for wrong, found in ((None, "None"), (5, "5"), (jax.random.split(jax.random.key(0)), r"shape \(2,\) of key<fry>")):
        with pytest.raises(ValueError, match=rf"`key` must be a JAX PRNG key; got {found}"):
            core.check_key(wrong)


def test_assumptions_say_how_far_they_fail():
    fine = core.Assumption("balanced", jnp.asarray(1e-12), 1e-8)
    broken = core.Assumption("whitened", jnp.asarray(0.25), 1e-8)
    unknown = core.Assumption("aligned", jnp.asarray(jnp.nan), 1e-8)
    assert bool(fine.holds) and not bool(broken.holds) and not bool(unknown.holds)
    assert str(broken) == "whitened: FAILS (violation 0.25, tolerance 1e-08)"
    assert core.enforce("value", "Theory", [fine]) == "value"
    with pytest.raises(ValueError) as error:
        core.enforce("value", "Theory", [fine, broken, unknown])
    assert "Theory does not apply. whitened: FAILS (violation 0.25" in str(error.value)
    assert "aligned: FAILS (violation nan" in str(error.value) and "check=False" in str(error.value)
    assert "balanced" not in str(error.value)


def test_assumptions_under_jit_keep_what_is_no_array():
    @eqx.filter_jit
    def build(violation):
        return core.enforce({"x": violation, "f": jnp.tanh}, "Theory", [core.Assumption("small", violation, 0.1)])

    assert build(jnp.asarray(0.05))["f"] is jnp.tanh
    with pytest.raises(Exception, match="small is violated beyond"):
        jax.block_until_ready(build(jnp.asarray(0.2))["x"])


def test_relative_norms_and_tolerances():
    assert float(core.relative_norm(jnp.asarray([3.0, 4.0]), jnp.asarray([[10.0]]))) == pytest.approx(0.5)
    assert float(core.relative_norm(jnp.zeros(2), jnp.zeros(2))) == 0.0
    assert float(core.relative_norm(jnp.ones(2), jnp.zeros(2))) > 1e300
    assert core.tolerance_for(jnp.ones(1)) == 1e-8 and core.tolerance_for(jnp.ones(1, jnp.float32)) == 1e-4


def test_result_codes():
    for code in (core.RESULTS.successful, core.RESULTS.event_occurred):
        assert bool(core.succeeded(code))
    for code in (core.RESULTS.diverged, core.RESULTS.max_steps_reached, core.RESULTS.dt_min_reached):
        assert not bool(core.succeeded(code))
