"""Where no threads help: at exit, in handlers of signals, where none can start, in forked children."""

import os
import subprocess
import sys

import pytest

from readouts.kernels.native.library import core

START = """
import atexit, faulthandler, os, resource, signal, threading, time
import torch
from readouts import readout
from readouts.kernels.native import memory
from readouts.kernels.native.library import core
memory.GRAIN = 100
x, index = torch.randn(3000, 8), torch.arange(3000) // 40

def call():
    names = ("sum", "max", "std")
    return float(readout(x, index, names).sum() + readout(x[:, :2], index, "median").sum())

faulthandler.dump_traceback_later(90, exit=True)
expected = call()
"""
ALONE = """
torch.set_num_threads(8)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0:
    os.setuid(65534)
print(call() == expected)
core.set_team(None)  # with threads of its own, too
print(call() == expected)
"""
HANDLERS = """
rung = []
signal.signal(signal.SIGALRM, lambda *_: rung.append(call() == expected))
for _ in range(10):
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    while not (call() == expected and rung):
        pass
    print(rung.pop())
atexit.register(lambda: print(call() == expected))
"""
FORKS = """
def compiling():
    while True:
        torch._dynamo.reset()
        torch.compile(lambda x: readout(x, index, "std"), backend="aot_eager")(x.clone())

threading.Thread(target=compiling, daemon=True).start()
for _ in range(4):
    time.sleep(0.2)
    child = os.fork()
    if child == 0:
        os._exit(0 if call() == expected else 1)
    print(os.waitpid(child, 0)[1] == 0, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(core.isa is None, reason="without the native core")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits, timers and forks of Linux")
@pytest.mark.parametrize(
    ("program", "lines"), [(ALONE, 2), (HANDLERS, 11), (FORKS, 4)], ids=["alone", "handlers", "forks"]
)
def test_the_call_itself_does_the_work(program, lines):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "-c", START + program], capture_output=True, text=True, env=environment, timeout=200
    )
    assert (run.returncode, run.stdout.split()) == (0, ["True"] * lines), run.stdout + run.stderr
