"""Random calls with random abuse, for test_memory_safety.py: python tests/fuzz.py SEED SECONDS.

Every call may raise an error of Python; none may end the process. Arguments have any dtype, layout and
shape; offsets, batches, orders and saved tensors are overwritten, exchanged or shortened before the call,
between forward and backward, and by a thread that writes all the time. The file FUZZ_LOG has the last call.
"""

import faulthandler
import os
import random
import sys
import threading
import time
import warnings

import torch

from readouts import Accumulator, Segments, readout
from readouts.functional import moments, order, weighted
from readouts.kernels.native import memory

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
NAMES = ("sum", "mean", "max", "min", "var", "std", "median")
WILD = (-(2**63), 2**63 - 1, 2**40, -1, 2**31, 10**6, 0)
POOLS = {
    "readout": lambda x, choose, **graphs: readout(
        x, reduce=choose.sample(NAMES, choose.randint(1, 3)), **graphs
    ),
    "median": lambda x, choose, **graphs: order.median(
        x, interpolation=choose.choice(order.MIDDLES), **graphs
    ),
    "quantile": lambda x, choose, batch=None, **graphs: order.quantile(x, batch, choose.random(), **graphs),
    "trimmed": lambda x, choose, batch=None, **graphs: order.trimmed_mean(
        x, batch, choose.random() / 2, **graphs
    ),
    "softmax": lambda x, choose, batch=None, **graphs: weighted.softmax_mean(
        x, x if choose.random() < 0.5 else x.flatten(1)[:, :1].flatten(), batch, **graphs
    ),
    "weighted": lambda x, choose, batch=None, **graphs: weighted.weighted_mean(x, x, batch, **graphs),
    "logsumexp": lambda x, choose, **graphs: weighted.logsumexp(x, **graphs),
    "power": lambda x, choose, batch=None, **graphs: weighted.power_mean(x, 2.0, batch, **graphs),
    "moments": lambda x, choose, **graphs: moments.moments(x, **graphs),
    "accumulator": lambda x, choose, batch=None, size=None, ptr=None: accumulated(
        x, batch, ptr, size, choose
    ),
}


def accumulated(x, batch, ptr, size, choose):
    total = Accumulator(choose.sample(NAMES[:6], 2), 5 if size is None else size)
    total.update(x, batch, ptr=ptr)
    return total.result()


def features(choose, nodes):
    dtype = choose.choice(DTYPES[:4] * 2 + DTYPES)
    shape = choose.choice([(nodes,), (nodes, choose.randint(0, 40)), (nodes, 2, 3), (nodes, 1)])
    x = (torch.randn(shape) * choose.choice([1, 100, 1e30])).to(dtype)
    kind = choose.randrange(8)
    if kind == 0 and x.dim() == 2:
        x = x.T.contiguous().T
    elif kind == 1:
        x = torch.cat([x, x])[::2]
    elif kind == 2 and dtype.is_floating_point:
        x = torch._neg_view(x)
    elif kind == 3 and x.dim() == 2:
        x = x[:, :1].expand(nodes, choose.randint(1, 5))
    return x.detach().requires_grad_(dtype.is_floating_point and choose.random() < 0.8)


def indices(choose, nodes, size):
    index = torch.randint(0, size, (nodes,))
    if choose.random() < 0.5:
        index = index.sort().values
    if choose.random() < 0.2 and nodes:
        index[choose.randrange(nodes)] = choose.choice(WILD)
    return index.int() if choose.random() < 0.3 else index


def offsets(choose, nodes, size):
    ptr = torch.randint(0, nodes + 1, (size + 1,)).sort().values
    ptr[0], ptr[-1] = 0, nodes
    if choose.random() < 0.3:
        ptr[choose.randrange(size + 1)] = choose.choice(WILD)
    return ptr.int() if choose.random() < 0.2 else ptr


def overwrite(choose, tensor):
    """Change a tensor in a way that PyTorch sees or does not see."""
    if tensor is None or tensor.dim() == 0 or tensor.numel() == 0:
        return
    wild, position = choose.choice(WILD), choose.randrange(tensor.shape[0])
    with torch.no_grad():
        match choose.randrange(5):
            case 0:
                tensor.numpy()[position] = wild if tensor.dtype == torch.int64 else 77
            case 1:
                tensor.data[position] = wild if tensor.dtype == torch.int64 else 77
            case 2:
                tensor[position] = wild if tensor.dtype == torch.int64 else 77
            case 3:
                tensor.data = tensor.data[: position + 1].clone()
            case 4:
                tensor.data = tensor.data.to(choose.choice(DTYPES))


class Writer(threading.Thread):
    """Writes to the memory of some tensors all the time, unseen by PyTorch."""

    def __init__(self):
        super().__init__(daemon=True)
        self.targets, self.stopped = [], False

    def run(self):
        choose = random.Random(0)
        while not self.stopped:
            for target in self.targets:
                if len(target):
                    target[choose.randrange(len(target))] = (
                        choose.choice(WILD) if target.itemsize == 8 else 77
                    )
            time.sleep(0)


def call(choose, writer):
    nodes, size = choose.choice([0, 1, 7, 60, 900, 20_000]), choose.choice([1, 3, 50])
    x, index, ptr = features(choose, nodes), indices(choose, nodes, size), offsets(choose, nodes, size)
    name, door = choose.choice(list(POOLS)), choose.randrange(6)
    note(
        f"{name}, door {door}, x {x.dtype} {tuple(x.shape)} {x.stride()}, size {size}, "
        f"{index.dtype}, {ptr.dtype}"
    )
    graphs = [
        dict(batch=index, size=size),
        dict(batch=index, size=size),
        dict(ptr=ptr),
        {},
        lambda: dict(batch=Segments.from_batch(index, size)),
        lambda: dict(batch=Segments.from_ptr(ptr, nodes)),
    ][door]
    graphs = graphs() if callable(graphs) else graphs
    segments = graphs.get("batch") if door > 3 else None
    parts = [index, ptr, x] + ([segments.index, segments.ptr, segments.order] if segments else [])
    if choose.random() < 0.3:
        overwrite(choose, choose.choice(parts[3:] or parts[:2]))
    if choose.random() < 0.3:
        owned = [part for part in parts if part is not None and part is not x and part.numel()]
        writer.targets = [part.numpy() for part in owned]
    out = POOLS[name](x, choose, **graphs)
    if choose.random() < 0.4:
        overwrite(choose, choose.choice([*parts, out.detach()]))
    if out.requires_grad:
        note("backward")
        (grad,) = torch.autograd.grad(out.sum(), x, create_graph=choose.random() < 0.2)
        if grad.requires_grad:
            grad.sum().backward()


def note(text):
    with open(os.environ.get("FUZZ_LOG", os.devnull), "w") as log:
        log.write(text)


def main(seed, seconds):
    faulthandler.enable()
    warnings.simplefilter("ignore")
    memory.GRAIN = 500  # threads for small calls, too
    torch.set_num_threads(2)
    choose, writer, calls, errors = random.Random(seed), Writer(), 0, {}
    torch.manual_seed(seed)
    writer.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        calls += 1
        try:
            call(choose, writer)
        except Exception as error:
            name = type(error).__name__
            errors[name] = errors.get(name, 0) + 1
        writer.targets = []
    writer.stopped = True
    writer.join()
    print(f"{calls} calls, errors: {errors}")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
