"""The wheel ships the library and its pytest plugin, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_contents(tmp_path):
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns(".*", "build", "dist", "results", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=skipped)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
        (entry_points,) = [wheel.read(name) for name in wheel.namelist() if name.endswith("entry_points.txt")]
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "readouts").rglob("*.py")}
    assert set(names) == package | {"readouts/py.typed", "readouts_pytest.py"}
    assert b"readouts = readouts_pytest" in entry_points
    assert b"readouts = readouts.__main__:main" in entry_points
