"""Readouts of 10^8 nodes under Ray, as `stream_dask.py` does under Dask: `python examples/stream_ray.py`.

Needs the extra `ray`: `pip install ".[ray]"`. The memory of Ray's own services is not
included.
"""

import time

import ray
from stream import GRAPHS, REDUCE, arguments, cut, memory, read, report

from readouts import Accumulator


@ray.remote(num_cpus=1, max_retries=2)
def task(begin: int, end: int) -> tuple[Accumulator, tuple[int, int]]:
    """Return the accumulator of a part, and the worker's identifier and peak memory."""
    return read(begin, end), (ray.get_runtime_context().get_worker_id(), memory())


def main() -> None:
    """Run the stream through Ray on this machine."""
    options, start = arguments(), time.perf_counter()
    total, peaks = Accumulator(REDUCE, size=GRAPHS), {}
    ray.init(num_cpus=options.workers, include_dashboard=False, log_to_driver=False)
    waiting = [task.remote(*part) for part in cut(options.nodes, options.parts)]
    while waiting:
        (done, *_), waiting = ray.wait(waiting)
        part, (worker, peak) = ray.get(done)
        total.merge(part)
        peaks[worker] = max(peak, peaks.get(worker, (0, 0)))
    ray.shutdown()
    report(total, start, [memory(), *peaks.values()])


if __name__ == "__main__":
    main()
