"""The command line, as a user runs it: output, files, exit codes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


def tractax(*arguments, cwd, ok=0):
    """Runs the command line in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    result = subprocess.run(
        [sys.executable, "-m", "tractax", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == ok, result.stdout + result.stderr
    return result


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_main_job(tmp_path):
    output = tractax("predict", cwd=tmp_path).stdout
    assert "LambdaBalancedRiccati (closed form)" in output and "FAILS" not in output
    assert files(tmp_path) == ["tractax-digits.npz", "tractax-digits.png"]
    with np.load(tmp_path / "tractax-digits.npz") as numbers:
        difference = np.abs(numbers["predicted_strength"] - numbers["simulated_strength"])
        assert difference.max() < 1e-8 * numbers["singular_values"].max()
        np.testing.assert_allclose(
            numbers["simulated_learning_time"], numbers["predicted_learning_time"], rtol=1e-6, equal_nan=True
        )
    assert (tmp_path / "tractax-digits.png").stat().st_size > 20_000
    assert "100.00%" in tractax("predict", "--width", "3", cwd=tmp_path).stderr


def test_own_data_and_options(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 3))
    np.savez(tmp_path / "mine.npz", inputs=x, targets=x @ generator.normal(size=(3, 2)))
    output = tractax(
        "predict",
        "mine.npz",
        "--no-whiten",
        "--init-scale",
        "0.1",
        "--figure",
        "f.svg",
        "--numbers",
        "n.npz",
        cwd=tmp_path,
    ).stdout
    assert "not whitened have no closed form" in output and "reduced equations" in output
    assert files(tmp_path) == ["f.svg", "mine.npz", "n.npz"]


def test_bad_input_ends_in_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "nan.csv").write_text("1,2,3\n4,nan,6\n7,8,9.5\n")
    for arguments, message in (
        (("predict", "missing.csv"), "`data` must be a file"),
        (("predict", "nan.csv"), "NaN"),
        (("predict", "--init-scale", "-1"), "`init_scale` must be positive"),
        (("predict", "--figure", "nowhere/f.png"), "--figure"),
        (("predict", "--numbers", "n.txt"), "--numbers"),
        (("verify", "nonsense"), "must be a system of the catalogue"),
        (("plot", "two_layer_mode"), "did you mean two_layer_modes?"),
        (("list", "--family", "nonsense"), "`family` must be one of"),
    ):
        result = tractax(*arguments, cwd=tmp_path, ok=2)
        assert message in result.stderr and "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in tractax("predict", "--no-such-option", cwd=tmp_path, ok=2).stderr
    assert files(tmp_path) == ["nan.csv"]


def test_list(tmp_path):
    lines = tractax("list", cwd=tmp_path).stdout.splitlines()
    assert lines[0].split() == ["NAME", "FAMILY", "KIND", "PAPER", "WHAT"]
    assert any("two_layer_modes" in line and "deep_linear" in line and "1312.6120" in line for line in lines)


def test_verify_writes_json(tmp_path):
    output = tractax("verify", "two_layer_modes", "--json", "results.json", cwd=tmp_path).stdout
    assert "1 of 1 passed" in output
    (result,) = json.loads((tmp_path / "results.json").read_text())
    assert result["name"] == "two_layer_modes" and result["family"] == "deep_linear" and result["kind"] == "exact"
    assert result["passed"] is True and 0 < result["measured"] <= result["claimed"] and result["seconds"] > 0


def test_verify_fails_with_exit_code_one(tmp_path):
    # A catalogue whose claim is too bold, in a process of its own.
    script = (
        "import sys, tractax.cli, tractax.systems as s\n"
        "from tractax.systems.deep_linear._two_layer_modes import TwoLayerModesSystem\n"
        "TwoLayerModesSystem.claim = s.Tolerance(1e-30)\n"
        "sys.argv = ['tractax', 'verify', 'two_layer_modes']\n"
        "tractax.cli.main()\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert result.returncode == 1 and "FAIL" in result.stdout and "failed: two_layer_modes" in result.stdout


def test_plot(tmp_path):
    assert tractax("plot", "two_layer_modes", "-o", "modes.png", cwd=tmp_path).stdout.strip() == "modes.png"
    assert (tmp_path / "modes.png").stat().st_size > 20_000
    assert "--output" in tractax("plot", "two_layer_modes", "-o", "modes.xyz", cwd=tmp_path, ok=2).stderr


@pytest.mark.parametrize("arguments", [(), ("--help",), ("predict", "--help")])
def test_help(tmp_path, arguments):
    result = tractax(*arguments, cwd=tmp_path, ok=0 if arguments else 2)
    assert "predict" in result.stdout + result.stderr
