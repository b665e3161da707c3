"""The C++ tests of the native core on this machine; `make arm` runs them on an emulated 64-bit Arm."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++") and platform.machine() in ("x86_64", "aarch64")),
    reason="the core needs CMake and a C++ compiler for x86-64 or 64-bit Arm",
)
def test_core():
    """Build in a folder that is kept, so that later runs compile what has changed, and run."""
    place = ROOT / "build" / "core"
    for command in (
        ["cmake", "-S", ROOT / "csrc", "-B", place, "-DREADOUTS_TESTS=ON"],
        ["cmake", "--build", place, "--target", "test_core", "--parallel", "2"],
        ["ctest", "--test-dir", place, "--output-on-failure"],
    ):
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
