"""The catalogue as data, and claims that can fail."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax import plotting
from tractax.core import Kind
from tractax.systems import (
    AbstractSystem,
    Citation,
    Exponent,
    Run,
    Signature,
    Tolerance,
    Verification,
    catalogue,
    get,
)

SYSTEMS = catalogue()
RULED = {"exact": (Tolerance,), "asymptotic": (Exponent,), "bound": (Tolerance, Signature), "phenomenon": (Signature,)}


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_entries_are_complete(system):
    assert system.name == system.name.lower().replace("-", "_").replace(" ", "_")
    assert getattr(tx, system.family).__name__ == f"tractax.{system.family}"
    assert isinstance(system.claim, RULED[system.kind])
    assert system.summary and "\n" not in system.summary and not system.summary.endswith(".")
    assert system.citation.authors and 1900 < system.citation.year < 2100
    assert type(system).__doc__
    if system.kind == "exact":
        assert system.claim.value <= 1e-8


def test_catalogue():
    names = [system.name for system in SYSTEMS]
    assert len(set(names)) == len(names)
    assert catalogue("deep_linear") == tuple(s for s in SYSTEMS if s.family == "deep_linear")
    assert get("two_layer_modes").name == "two_layer_modes"
    with pytest.raises(ValueError, match=r"`family` must be one of .*deep_linear.*; got 'deep'"):
        catalogue("deep")
    with pytest.raises(ValueError, match="got 'two_layer_mode': did you mean two_layer_modes"):
        get("two_layer_mode")
    with pytest.raises(ValueError, match=r"got 'qqqq': `tractax list` shows the names"):
        get("qqqq")
    with pytest.raises(ValueError, match="did you mean two_layer_modes"):
        tx.verify("two_layers_modes")


def test_verify_by_name():
    report = tx.verify("two_layer_modes")
    assert isinstance(report, Verification) and report.passed and report.measured <= report.claimed == 1e-8
    assert (report.name, report.family, report.kind) == ("two_layer_modes", "deep_linear", "exact")
    assert report.interval is None and report.seconds > 0


class Own(AbstractSystem):
    """A user's own system, which finds whatever it is told to."""

    found: Any
    claim: Any
    name: ClassVar[str] = "own"
    family: ClassVar[str] = "elsewhere"
    kind: ClassVar[Kind] = "bound"
    summary: ClassVar[str] = "finds what it is told to"
    citation: ClassVar[Citation] = Citation("Nobody", 2000)

    def measure(self):
        return self.found

    def draw(self, figure):
        figure.subplots().plot([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("claim", "found", "passes"),
    [
        (Tolerance(1e-3), 1e-3, True),
        (Tolerance(1e-3), 1.1e-3, False),
        (Tolerance(1e-3), jnp.nan, False),
        (Signature(2.0, "gap"), 2.0, True),
        (Signature(2.0, "gap"), 1.9, False),
        (Signature(2.0, "gap"), jnp.nan, False),
        (Exponent(-1.0), 1e-30, False),
    ],
)
def test_claims_pass_and_fail(claim, found, passes):
    report = tx.verify(Own(jnp.asarray(found), claim))
    assert report.passed is passes
    assert report.claimed == claim.value and report.quantity == claim.quantity


def test_exponents_pass_by_their_interval():
    def fit(exponent):
        noise = {1.0: 1.05, 10.0: 0.97, 100.0: 1.02, 1000.0: 0.99}
        return tx.scaling(lambda size: jnp.asarray(size**exponent * noise[size]), list(noise))

    passed, failed = (tx.verify(Own(fit(p), Exponent(-1.0))) for p in (-1.0, -1.1))
    assert passed.passed and passed.interval[0] < -1.0 < passed.interval[1]
    assert not failed.passed and failed.measured == pytest.approx(-1.1, abs=0.02)


def test_citations():
    assert str(Citation("A, B", 2013, "1312.6120")) == "A, B 2013, arXiv 1312.6120"
    assert str(Citation("A", 1999)) == "A 1999"


def test_a_run_simulates_what_its_solution_reduces():
    run = get("two_layer_modes").run()
    assert isinstance(run, Run)
    trajectory = run.simulate()
    np.testing.assert_array_equal(trajectory.ts, run.ts)
    assert trajectory.observed.strength.shape == (len(run.ts), 3)


def test_figures_are_written_whole_or_not_at_all(tmp_path):
    figure = plotting.new_figure()
    Own(0.0, Tolerance(1.0)).draw(figure)
    for name in ("figure.png", "figure.pdf", "FIGURE.SVG"):
        path = plotting.save(figure, tmp_path / name)
        assert path.stat().st_size > 1000
    with pytest.raises(ValueError, match=r"`path` must end in one of .*\.png.*; got .*figure\.docx"):
        plotting.save(figure, tmp_path / "figure.docx")
    with pytest.raises(ValueError, match="`path` must end in one of"):
        plotting.save(figure, tmp_path / "figure")
    with pytest.raises(OSError):
        plotting.save(figure, tmp_path / "missing" / "figure.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["FIGURE.SVG", "figure.pdf", "figure.png"]


def test_a_failed_save_leaves_the_old_figure(tmp_path, monkeypatch):
    figure, path = plotting.new_figure(), tmp_path / "figure.png"
    path.write_bytes(b"old")

    def broken(draft):
        raise RuntimeError("disk full")

    monkeypatch.setattr(figure, "savefig", broken)
    with pytest.raises(RuntimeError, match="disk full"):
        plotting.save(figure, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
