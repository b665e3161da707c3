"""Readouts of 10^8 nodes under Dask, in less than a gigabyte: `python examples/stream_dask.py`.

The stream is cut into tasks; every task returns an `Accumulator`, which is merged as soon as it arrives. If a
worker dies, its tasks are run again on another. Try other `--workers` and `--parts`: the digest of the
results stays the same. On an existing cluster, pass its address to `Client`, make this folder
available to its workers, and leave out `LocalCluster`. Needs the extra `dask`: `pip install ".[dask]"`.
"""

import time

from dask.distributed import Client, LocalCluster, as_completed
from stream import GRAPHS, REDUCE, arguments, cut, memory, read, report

from readouts import Accumulator


def main() -> None:
    """Run the stream through a cluster of processes on this machine."""
    options, start = arguments(), time.perf_counter()
    total = Accumulator(REDUCE, size=GRAPHS)
    with (
        LocalCluster(n_workers=options.workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        ranges = zip(*cut(options.nodes, options.parts), strict=True)
        for _, part in as_completed(client.map(read, *ranges, retries=2), with_results=True):
            total.merge(part)
        peaks = [memory(), *client.run(memory).values()]
    report(total, start, peaks)


if __name__ == "__main__":
    main()
