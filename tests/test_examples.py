"""Every example runs, in its quick form, and writes its figure."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
# By default one, which shows that the way of running them works.
SLOW = [path.stem for path in EXAMPLES if path.stem != "saxe_learning_curves"]


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize(
    "example",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW)) for path in EXAMPLES],
)
def test_example(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(f"example_{example.stem}", example)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figure = tmp_path / "figure.png"
    module.main(figure, quick=True)
    assert figure.stat().st_size > 10_000
    assert module.__doc__
