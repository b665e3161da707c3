"""Which core is loaded: files that are not one, READOUTS_ISA, and what `readouts info` says."""

import _ctypes
import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from readouts.__main__ import main
from readouts.kernels.native.library import _FILE, ARGUMENTS, INSTRUCTION_SETS, Core, core, team_of_torch

needs_core = pytest.mark.skipif(not _FILE.exists(), reason="this clone was built without the native core")
ABSENT = "neon" if platform.machine() in ("x86_64", "AMD64") else "avx512"
SENTENCE = re.compile(r"[^\n]{20,400}")


def run(code, **environment):
    given = {name: value for name, value in os.environ.items() if name != "READOUTS_ISA"} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given)


def refused(loaded, *words):
    assert loaded.isa is None
    assert SENTENCE.fullmatch(loaded.reason), loaded.reason
    assert all(word in loaded.reason for word in words), loaded.reason
    with pytest.raises(AttributeError, match=re.escape(loaded.reason)):
        loaded.reduce(None)


@needs_core
def test_an_instruction_set_is_chosen():
    loaded = Core(wanted=core.isa)  # which is a choice for the whole process
    assert loaded.isa in INSTRUCTION_SETS
    assert loaded.reason == ""
    assert loaded.flag_works() in (0, 1)


def test_arguments_are_those_of_the_core():
    source = (Path(__file__).parents[4] / "csrc" / "core.cpp").read_text()
    entries = re.findall(r"READOUTS_API int(?:64_t)? readouts_(\w+)\(([^)]*)\)", source)
    entries += re.findall(r"READOUTS_API void readouts_(\w+)\(([^)]*)\)", source)
    assert {name: len(re.findall(r"\w,|\w$", arguments)) for name, arguments in entries} == ARGUMENTS
    assert not re.search(r"[(,]\s*int \w+[,)]", "".join(arguments for _, arguments in entries))


@pytest.mark.skipif("OpenMP" not in torch.__config__.parallel_info(), reason="PyTorch without OpenMP")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems' OpenMP has no GOMP_parallel")
def test_threads_are_those_of_pytorch():
    assert team_of_torch() is not None


def test_missing_file(tmp_path):
    refused(Core(tmp_path / "libreadouts_core.so"), "no native core")


@pytest.mark.parametrize(
    "content", [b"", b"text\n" * 1000, b"\x7fELF" + bytes(1000)], ids=["empty", "text", "ELF"]
)
def test_file_that_is_no_library(tmp_path, content):
    file = tmp_path / "libreadouts_core.so"
    file.write_bytes(content)
    refused(Core(file), "cannot be loaded", str(file))


def test_folder_in_the_place_of_the_file(tmp_path):
    refused(Core(tmp_path), "cannot be loaded", str(tmp_path))


def test_other_library():
    refused(Core(Path(_ctypes.__file__)), "cannot be loaded", "readouts_")


@needs_core
@pytest.mark.parametrize("part", [0.001, 0.5, 0.99])
def test_file_that_was_cut_off(tmp_path, part):
    """Loading it would end the process: so this is another process."""
    file = tmp_path / "libreadouts_core.so"
    content = _FILE.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    code = "from pathlib import Path; from readouts.kernels.native.library import Core"
    found = run(f"{code}; core = Core(Path({str(file)!r})); print(core.isa, core.reason)")
    assert found.returncode == 0, (found.returncode, found.stderr)
    assert found.stdout.startswith("None the native core cannot be loaded")


def test_switched_off():
    refused(Core(wanted="none"), "READOUTS_ISA=none")


@needs_core
def test_instruction_set_of_another_processor():
    refused(Core(wanted=ABSENT), "this processor has no", ABSENT)


@needs_core
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs the Debian package qemu-user")
def test_avx512_on_a_processor_without_it():
    """QEMU has AVX2 and no AVX-512; torch would take minutes to import under it."""
    code = (
        "import ctypes, sys\n"
        "core = ctypes.CDLL(sys.argv[1])\n"
        "core.readouts_choose.restype = ctypes.c_char_p\n"
        "print(*[core.readouts_choose(name) for name in (b'avx512', b'avx2', b'baseline', None)])\n"
    )
    if ctypes.CDLL(str(_FILE)).readouts_choose(b"baseline") == 0:
        pytest.skip("this is no x86-64")
    command = ["qemu-x86_64", "-cpu", "Haswell", os.path.realpath(sys.executable), "-c", code, str(_FILE)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.split() == ["None", "b'avx2'", "b'baseline'", "b'avx2'"], found.stderr


def test_unknown_instruction_set():
    refused(Core(wanted="sse9"), "READOUTS_ISA", "'sse9'", *INSTRUCTION_SETS, "none")


@pytest.mark.parametrize(("wanted", "warnings"), [("none", 0), ("sse9", 1), (ABSENT, 1)])
def test_readouts_work_without_the_core(wanted, warnings):
    code = (
        "import torch, readouts\n"
        "x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])\n"
        "for _ in range(2): print(readouts.readout(x, batch, 'mean').tolist())\n"
    )
    found = run(code, READOUTS_ISA=wanted)
    assert found.stdout == "[[1.5], [4.0]]\n" * 2, found.stderr
    assert found.stderr.count("slower kernels in plain PyTorch return the same bits") == warnings


def test_info(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"^torch +{re.escape(torch.__version__)}$", shown, re.MULTILINE)
    state = f"in use, {core.isa}" if core.isa else "not in use: .+"
    assert re.search(rf"^native core +{state}$", shown, re.MULTILINE)
    assert re.search(rf"^threads +{torch.get_num_threads()}$", shown, re.MULTILINE)


def test_info_as_json(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["native_core"] == (core.isa is not None) == (found["reason"] is None)
    assert found["instruction_set"] == core.isa
    assert found["flag_certifies_sums"] in ((True, False) if core.isa else (None,))
    assert set(found) >= {"readouts", "threads", "torch", "torch_geometric", "triton", "cuda_device"}


def test_info_without_the_core():
    code = "import sys; from readouts.__main__ import main; sys.exit(main(['info']))"
    found = run(code, READOUTS_ISA="none")
    assert found.returncode == 0, found.stderr
    assert "native core        not in use: READOUTS_ISA=none switches the native core off\n" in found.stdout
    assert "certified" not in found.stdout
