"""Timing shared by the scripts: warm up (compile), block until ready, take turns, report medians."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax


def median_seconds(functions: Mapping[str, Callable[[], Any]], repeats: int = 7) -> dict[str, float]:
    """Median seconds of each function, measured in turn (A B A B …) after one call that compiles."""
    for function in functions.values():
        jax.block_until_ready(eqx.filter(function(), eqx.is_array))
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(eqx.filter(function(), eqx.is_array))
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def describe_machine() -> str:
    """Device, dtype and versions, for the head of a table."""
    (device, *others) = jax.devices()
    return (
        f"{device.device_kind} x {1 + len(others)} ({platform.machine()}), float64; Python {platform.python_version()}, "
        f"jax {jax.__version__}, diffrax {diffrax.__version__}"
    )
