"""The command line, as a user runs it: output, files, exit codes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tractax.cli import main
from tractax.systems import Tolerance, get


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
    result = tractax("predict", cwd=tmp_path)
    output = result.stdout
    assert "100.00%" in result.stderr
    assert "LambdaBalancedRiccati (closed form)" in output and "FAILS" not in output
    assert files(tmp_path) == ["tractax-digits.npz", "tractax-digits.png"]
    with np.load(tmp_path / "tractax-digits.npz") as numbers:
        difference = np.abs(numbers["predicted_strength"] - numbers["simulated_strength"])
        assert difference.max() < 1e-8 * numbers["singular_values"].max()
        np.testing.assert_allclose(
            numbers["simulated_learning_time"], numbers["predicted_learning_time"], rtol=1e-6, equal_nan=True
        )
    assert (tmp_path / "tractax-digits.png").stat().st_size > 20_000


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the command line in this process, in an empty directory; returns exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tractax", *arguments])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return run


def test_own_data_and_options(command, tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 3))
    np.savez(tmp_path / "mine.npz", inputs=x, targets=x @ generator.normal(size=(3, 2)))
    options = ("--no-whiten", "--init-scale", "0.1", "--figure", "f.svg", "--numbers", "n.npz")
    code, output, _ = command("predict", "mine.npz", *options)
    assert code == 0 and "not whitened have no closed form" in output and "reduced equations" in output
    assert files(tmp_path) == ["f.svg", "mine.npz", "n.npz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "missing.csv"), "`data` must be a file"),
        (("predict", "nan.csv"), "NaN"),
        (("predict", "--init-scale", "-1"), "`init_scale` must be positive"),
        (("predict", "--horizon", "-1"), "`horizon` must be positive"),
        (("predict", "--figure", "nowhere/f.png"), "--figure"),
        (("predict", "--numbers", "n.txt"), "--numbers"),
        (("verify", "nonsense"), "must be a system of the catalogue"),
        (("verify", "two_layer_modes", "--json", "."), "`--json` must be a file"),
        (("plot", "two_layer_mode"), "did you mean two_layer_modes"),
        (("plot", "two_layer_modes", "-o", "modes.xyz"), "--output"),
        (("list", "--family", "nonsense"), "`family` must be one of"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(command, tmp_path, arguments, message):
    (tmp_path / "nan.csv").write_text("1,2,3\n4,nan,6\n7,8,9.5\n")
    code, _, errors = command(*arguments)
    assert code == 2 and message in errors
    assert len(errors.strip().splitlines()) == 1
    assert files(tmp_path) == ["nan.csv"]


def test_unknown_options(command):
    code, output, errors = command("predict", "--no-such-option")
    assert code == 2 and "no-such-option" in output + errors


def test_list(command):
    lines = command("list")[1].splitlines()
    assert lines[0].split() == ["NAME", "FAMILY", "KIND", "PAPER", "WHAT"]
    assert any("two_layer_modes" in line and "deep_linear" in line and "1312.6120" in line for line in lines)


def test_verify_writes_json(command, tmp_path):
    code, output, _ = command("verify", "two_layer_modes", "--json", "results.json")
    assert code == 0 and "1 of 1 passed" in output
    (result,) = json.loads((tmp_path / "results.json").read_text())
    assert result["name"] == "two_layer_modes" and result["family"] == "deep_linear" and result["kind"] == "exact"
    assert result["passed"] is True and 0 < result["measured"] <= result["claimed"] and result["seconds"] > 0


def test_verify_fails_with_exit_code_one(command, monkeypatch):
    monkeypatch.setattr(type(get("two_layer_modes")), "claim", Tolerance(1e-30))
    code, output, _ = command("verify", "two_layer_modes")
    assert code == 1 and "FAIL" in output and "failed: two_layer_modes" in output


@pytest.mark.slow
def test_plot(command, tmp_path):
    assert command("plot", "two_layer_modes", "-o", "modes.png")[:2] == (0, "modes.png\n")
    assert (tmp_path / "modes.png").stat().st_size > 20_000


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "--help")])
def test_help(command, arguments):
    code, output, _ = command(*arguments)
    assert code == 0 and "predict" in output
