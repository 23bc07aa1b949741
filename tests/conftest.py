"""float64, strict promotion, two CPU devices, and programs compiled quickly rather than well, once."""

import collections
import gc
import importlib.metadata
import os
import pathlib

# Before JAX starts: sharding must work wherever the tests run, and most of their time is compilation.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=2"
    " --xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true"
)
# A third off the time of compilation. Unknown flags are fatal, so only where this one is known.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("MPLBACKEND", "agg")
# What one process compiled, the others (and the next run) read.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_collection_finish():
    """Modules stay: the garbage collector, called often by tracing, need not look through them every time."""
    gc.freeze()


@pytest.fixture
def getkey():
    """A function that returns a fresh key at each call, the same sequence in every test."""
    keys = iter(jax.random.split(jax.random.key(1234), 1000))
    return lambda: next(keys)


_COMPILED = "/jax/core/compile/backend_compile_duration"
_events = collections.Counter()
jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: _events.update([event]))


@pytest.fixture(autouse=True)
def forget_programs():
    """Compiled programs keep memory mapped, some ten times each, and Linux ends a process with 65,530 mappings."""
    yield
    if _events[_COMPILED] > 5500:
        jax.clear_caches()
        _events.clear()
