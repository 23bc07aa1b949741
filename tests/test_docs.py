"""The documentation is true: its code runs, its links lead somewhere, its names are the exported ones."""

import ast
import importlib
import inspect
import os
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# What a reader's process starts with, and this one's settings are put back after.
DEFAULTS = {
    "jax_enable_x64": False,
    "jax_numpy_rank_promotion": "allow",
    "jax_numpy_dtype_promotion": "standard",
}
FAMILIES = ("deep_linear", "teacher_student", "transformers", "two_layer")
ROOMS = ("analysis", "core", "prediction", "rules", "solvers", "special", "systems", "training")
PACKAGES = ["tractax", *(f"tractax.{name}" for name in (*FAMILIES, *ROOMS)), "tractax.plotting"]


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture
def readers_process(tmp_path, monkeypatch):
    """An empty directory and JAX as it comes."""
    before = {name: getattr(jax.config, name) for name in DEFAULTS}
    monkeypatch.chdir(tmp_path)
    for name, value in DEFAULTS.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def _with_code():
    """Pages with code; all but the first ones that people read are slow."""
    for page in PAGES:
        if BLOCK.search(page.read_text()):
            slow = page.stem not in ("README", "conventions")
            yield pytest.param(page, id=_name(page), marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize("page", list(_with_code()))
def test_code_runs(page, readers_process):
    namespace = {"__name__": "__main__"}
    text = page.read_text()
    for block in BLOCK.finditer(text):
        # Blank lines in front, so that a traceback shows the line of the page.
        lines = "\n" * text[: block.start(1)].count("\n")
        exec(compile(lines + block[1], str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{_name(page)} links to {target}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{_name(page)} links to {target}, which has no such heading"


def _exported(package):
    """Names that `__init__` re-exports as `X as X`; of a plain module, the public functions and classes it defines."""
    module = importlib.import_module(package)
    if not hasattr(module, "__path__"):
        return {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and inspect.getmodule(value) is module and callable(value)
        }
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in imports for alias in node.names if alias.asname == alias.name}


def _documented(package):
    section = re.search(rf"^## `{re.escape(package)}`\n(.*?)(?=^## |\Z)", (ROOT / "docs/api.md").read_text(), re.M | re.S)
    assert section, f"docs/api.md has no section for {package}"
    return re.findall(r"^- `(\w+)`: \S", section[1], re.MULTILINE)


def _first_line(package, name):
    return (inspect.getdoc(getattr(importlib.import_module(package), name)) or "").partition("\n")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_documented_names_are_the_exported_ones(package):
    exported, documented = _exported(package), _documented(package)
    assert len(set(documented)) == len(documented)
    missing = "\n".join(f"- `{name}`: {_first_line(package, name)}" for name in sorted(exported - set(documented)))
    assert not missing, f"docs/api.md lacks under {package}:\n{missing}"
    assert not set(documented) - exported, f"docs/api.md lists names that {package} does not export"


@pytest.mark.parametrize("package", PACKAGES[1:])
def test_reference_has_every_documented_name(package):
    rendered = re.findall(rf"^::: {re.escape(package)}\.(\w+)$", (ROOT / "docs/reference.md").read_text(), re.MULTILINE)
    missing = "\n\n".join(f"::: {package}.{name}" for name in _documented(package) if name not in rendered)
    assert not missing, f"docs/reference.md lacks:\n{missing}"
    assert set(rendered) == set(_documented(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_export_has_a_docstring(package):
    for name in _exported(package):
        exported = getattr(importlib.import_module(package), name)
        if inspect.isclass(exported) or inspect.isfunction(exported) or inspect.ismodule(exported):
            assert exported.__doc__, f"{package}.{name} has no docstring"


def test_every_theory_has_a_page_and_a_figure():
    from tractax.systems import catalogue

    text = "".join(page.read_text() for page in (ROOT / "docs" / "theory").glob("*.md"))
    for system in catalogue():
        assert f"../figures/{system.name}.png" in text, f"no page of docs/theory shows the figure of {system.name}"


def test_pages_are_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    listed = {line.rpartition(": ")[2] for line in menu.splitlines() if line.endswith(".md")}
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}
    assert listed == pages, f"only in mkdocs.yml: {listed - pages}; only in docs: {pages - listed}"


def test_no_machine_is_named():
    for page in PAGES:
        assert not re.search(r"(?<![\w./])/(home|tmp|work|Users)/", page.read_text()), f"{_name(page)} names a path"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
