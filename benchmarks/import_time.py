"""`import tractax` against `import diffrax, optax`, in fresh processes, in turn.

python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys

STATEMENTS = {"diffrax, optax": "import diffrax, optax", "tractax": "import tractax"}
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def main(repeats: int = 9):
    """Prints medians and their ratio."""
    seconds: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for i in range(repeats + 1):
        for name, statement in STATEMENTS.items():
            command = [sys.executable, "-c", TIMED.format(statement)]
            taken = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            if i:  # the first round fills the disk cache
                seconds[name].append(taken)
    base, ours = (statistics.median(seconds[name]) for name in STATEMENTS)
    print(f"import diffrax, optax: {base:.2f} s; import tractax: {ours:.2f} s; ratio {ours / base:.3f}")


if __name__ == "__main__":
    main()
