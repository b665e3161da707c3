"""The order of the house: arrows between modules, weight of the import, public names, documentation."""

import ast
import graphlib
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import readouts
import readouts.nn

ROOT = Path(__file__).parents[1]
FLOORS = [  # every module imports from its own floor or a lower one
    ["readouts.keywords", "readouts.reductions"],
    ["readouts.interruptions", "readouts.numerics"],
    ["readouts.kernels"],
    ["readouts.ops"],
    ["readouts.segments"],
    ["readouts.functional"],
    ["readouts.accumulator", "readouts.scatter"],
    ["readouts"],
    ["readouts.nn"],
    ["readouts.attribution", "readouts.distributed", "readouts.testing"],
    ["readouts.commands"],
    ["readouts.__main__"],
    ["datasets"],
    ["experiments"],
]
SOURCES = [
    path for top in ("readouts", "datasets", "experiments") for path in sorted((ROOT / top).rglob("*.py"))
]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(name):
    """Return the floor of the longest listed prefix; `readouts` stands for its __init__ alone."""
    matches = [
        (len(prefix), level)
        for level, prefixes in enumerate(FLOORS)
        for prefix in prefixes
        if name == prefix or (name.startswith(prefix + ".") and prefix != "readouts")
    ]
    return max(matches)[1] if matches else None


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                place = ROOT / full.replace(".", "/")
                is_module = place.with_suffix(".py").exists() or (place / "__init__.py").exists()
                yield full if is_module else node.module


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_one_way(path):
    level = floor(module_name(path))
    assert level is not None, f"{path} is on no floor: name it in FLOORS"
    for name in imported_modules(path):
        if name.partition(".")[0] in ("readouts", "datasets", "experiments"):
            assert floor(name) is not None, f"{path} imports {name}, which is on no floor"
            assert floor(name) <= level, f"{path} imports {name} from a floor above"


def test_no_import_circles():
    graph = {module_name(path): set(imported_modules(path)) for path in SOURCES}
    order = graphlib.TopologicalSorter({name: found & graph.keys() - {name} for name, found in graph.items()})
    order.prepare()  # raises a CycleError that names the circle


def test_import_is_light():
    code = (
        "import sys, readouts\n"
        "heavy = {'triton', 'matplotlib', 'torch_geometric', 'networkx'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_init_files_only_re_export():
    for package in (
        "readouts",
        "readouts/attribution",
        "readouts/distributed",
        "readouts/functional",
        "readouts/kernels",
        "readouts/kernels/portable",
        "readouts/kernels/triton",
        "readouts/nn",
        "readouts/numerics",
        "readouts/ops",
        "readouts/testing",
    ):
        body = ast.parse((ROOT / package / "__init__.py").read_text()).body
        allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef)
        assert all(isinstance(node, allowed) for node in body)


PUBLIC = ("readouts", "readouts.attribution", "readouts.distributed", "readouts.nn", "readouts.testing")


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_there_and_documented(package):
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        documented = getattr(module, name)
        assert inspect.getdoc(documented), name
        for attribute, member in vars(documented).items() if inspect.isclass(documented) else ():
            if not attribute.startswith("_") and callable(member):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_version_is_the_same_everywhere():
    version = readouts.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "CHANGELOG.md").read_text().startswith(f"# Changelog\n\n## {version} ")
