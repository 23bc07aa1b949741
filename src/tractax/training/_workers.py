"""Run chunks of an ensemble side by side: on several devices, and on the cores of a CPU."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import jax


def places(devices: Sequence[Any] | jax.sharding.Mesh | None) -> list[Any]:
    """One device for every worker, those of this process only; a CPU device is worked on by several cores."""
    listed: Any = devices.devices.flat if isinstance(devices, jax.sharding.Mesh) else devices
    listed = jax.local_devices() if listed is None else list(listed) if isinstance(listed, Iterable) else [listed]
    if not all(isinstance(device, jax.Device) for device in listed):
        raise ValueError(f"`devices` must be a list of devices, or a jax.sharding.Mesh; got {devices!r}.")
    found = [device for device in listed if device.process_index == jax.process_index()]
    if not found:
        raise ValueError(f"`devices` must hold devices of this process; got {devices}.")
    if devices is None and found[0].platform == "cpu":
        # XLA runs small programs on one core; calls from several threads run at the same time.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [found[i % len(found)] for i in range(max(cores, len(found)))]
    return found


def in_parallel(
    begin: Callable[[Any, Any], Any], finish: Callable[[Any, Any], Any], jobs: Iterable[Any], workers: Sequence[Any]
) -> Iterator[tuple[Any, Any]]:
    """Yields `(job, result)` as jobs finish, one job for each worker at a time.

    **Arguments:**

    - `begin`: called as `begin(job, device)` in this thread, for what must happen once, such as compilation.
    - `finish`: called as `finish(job, begun)` in a thread of its own.
    - `jobs`: what to do.
    - `workers`: the device of each worker.
    """
    idle = list(workers)
    running: dict[Future, tuple[Any, Any]] = {}
    with ThreadPoolExecutor(len(workers)) as pool:
        jobs = iter(jobs)
        exhausted = False
        try:
            while running or not exhausted:
                while idle and not exhausted:
                    job = next(jobs, None)
                    if job is None:
                        exhausted = True
                    else:
                        device = idle.pop(0)
                        running[pool.submit(finish, job, begin(job, device))] = (job, device)
                done, _ = wait(running, return_when=FIRST_COMPLETED) if running else ((), ())
                for future in done:
                    job, device = running.pop(future)
                    idle.append(device)
                    yield job, future.result()
        finally:
            for future in running:
                future.cancel()
