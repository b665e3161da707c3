"""The C++ tests of the native core, on this machine and on an emulated 64-bit Arm."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


def passes(folder, *options):
    """Build the tests in a folder that is kept, so that later runs compile what has changed, and run them."""
    place = ROOT / "build" / folder
    for command in (
        ["cmake", "-S", ROOT / "csrc", "-B", place, "-DREADOUTS_TESTS=ON", *options],
        ["cmake", "--build", place, "--target", "test_core", "--parallel", "2"],
        ["ctest", "--test-dir", place, "--output-on-failure"],
    ):
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++") and platform.machine() in ("x86_64", "aarch64")),
    reason="the core needs CMake and a C++ compiler for x86-64 or 64-bit Arm",
)
def test_core():
    passes("core")


@pytest.mark.skipif(
    not all(map(shutil.which, ("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64"))),
    reason="the tests for Arm need CMake and the Debian packages g++-aarch64-linux-gnu and qemu-user",
)
def test_core_on_arm():
    passes("arm", "--toolchain", ROOT / "csrc" / "tests" / "aarch64.cmake")
