"""Importing tractax is cheap and leaves JAX as it was."""

import os
import subprocess
import sys


def _python(code, **env):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_starts_no_backend():
    # With a platform that does not exist, the first use of a device fails; importing must not be one.
    code = """
import tractax
import jax
try:
    jax.devices()
except RuntimeError:
    print("not started")
"""
    assert _python(code, JAX_PLATFORMS="nowhere").strip() == "not started"


def test_import_changes_no_configuration_and_loads_no_extra():
    code = """
import sys
import jax
import diffrax, equinox, optax, optimistix
before = dict(jax.config.values)
import tractax
assert jax.config.values == before
print([name for name in ("matplotlib", "scipy.stats", "tyro", "tqdm", "pytest") if name in sys.modules])
"""
    assert _python(code).strip() == "[]"
