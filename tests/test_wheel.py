"""The wheel ships the library with its native core, the pytest plugin, and nothing else."""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = "readouts/kernels/native/libreadouts_core.so"
needs_compiler = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++") and platform.machine() in ("x86_64", "aarch64")),
    reason="the core needs CMake and a C++ compiler for x86-64 or 64-bit Arm",
)


def build(source, target, *options, **environment):
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        target,
        *options,
        source,
    ]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = target.glob("*.whl")
    return wheel, run.stdout + run.stderr


@pytest.fixture
def copy(tmp_path):
    """The sources as they lie here, but for what git ignores; the library of a clone is among them."""
    skipped = shutil.ignore_patterns(".*", "build", "dist", "results", "*.egg-info", "__pycache__")
    return shutil.copytree(ROOT, tmp_path / "source", ignore=skipped)


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        others = set(archive.namelist()) - set(names)
        metadata = {Path(name).name: archive.read(name).decode() for name in others}
    return set(names), metadata


def check(names, metadata):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "readouts").rglob("*.py")}
    assert names - {LIBRARY} == modules | {"readouts/py.typed", "readouts_pytest.py"}
    assert "readouts = readouts_pytest" in metadata["entry_points.txt"]
    assert "readouts = readouts.__main__:main" in metadata["entry_points.txt"]
    assert metadata["LICENSE"] == (ROOT / "LICENSE").read_text()


@pytest.mark.thorough
@needs_compiler
def test_contents(tmp_path):
    """One wheel serves every Python and torch of a platform. Without optimisation it is soon compiled."""
    options = (
        f"-Cbuild-dir={ROOT / 'build' / 'wheel'}",
        "-Ccmake.build-type=Debug",
    )
    wheel, _ = build(ROOT, tmp_path, *options)
    names, metadata = contents(wheel)
    check(names, metadata)
    assert LIBRARY in names
    assert re.fullmatch(r"readouts-.*-py3-none-(linux|manylinux|macosx)\w*\.whl", wheel.name)
    assert "Root-Is-Purelib: false" in metadata["WHEEL"]


def test_without_a_compiler_the_wheel_is_pure(copy, tmp_path):
    wheel, log = build(copy, tmp_path, CC="/bin/false", CXX="/bin/false")
    names, metadata = contents(wheel)
    check(names, metadata)
    assert LIBRARY not in names
    assert wheel.name.endswith("-py3-none-any.whl")
    assert log.count("readouts: the native core could not be built") == 1
    place = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    code = (
        "import sys\n"  # without the finder of an editable installation, which comes before every path
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__]\n"
        "import torch, readouts\n"
        "x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])\n"
        "for _ in range(2): print(readouts.__file__, readouts.readout(x, batch, 'mean').tolist())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(place)}
    environment.pop("READOUTS_ISA", None)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert run.stdout.splitlines() == [f"{place / 'readouts' / '__init__.py'} [[1.5], [4.0]]"] * 2, run.stderr
    assert run.stderr.count("no native core") == 1


def test_sdist_builds_the_core(copy, tmp_path):
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, copy]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (top,) = (tmp_path / "unpacked").iterdir()
    found = {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert sources | {"pyproject.toml", "README.md", "LICENSE", "readouts_pytest.py"} <= found
    assert not {name for name in found if name.endswith(".so") or name.startswith(("tests/", "experiments/"))}
