"""Four processes that tests give work to, started once: `run` has the first few of them do it together."""

import multiprocessing
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

WORLDS = (1, 2, 3, 4)


class Processes:
    """Processes of a gloo group, each waiting for work at the other end of a pipe."""

    def __init__(self, number, folder, timeout):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["readouts.distributed", "readouts.kernels.native.elementary"])
        pairs = [context.Pipe() for _ in range(number)]
        store = f"file://{folder}/store"
        self.pipes = [near for near, _ in pairs]
        self.processes = [
            context.Process(target=_work, args=(far, rank, number, store, timeout), daemon=True)
            for rank, (_, far) in enumerate(pairs)
        ]
        for process in self.processes:
            process.start()

    def run(self, world, work, *arguments, **options):
        """Call work(group, ...) on the first `world` processes; return what they return."""
        for rank in range(world):
            self.send(rank, world, work, *arguments, **options)
        answers = [self.pipes[rank].recv() for rank in range(world)]
        problems = [answer for failed, answer in answers if failed]
        assert not problems, "\n".join(problems)
        return [answer for _, answer in answers]

    def send(self, rank, world, work, *arguments, **options):
        """Have one of the first `world` processes do its part."""
        self.pipes[rank].send((world, work, arguments, options))

    def receive(self, rank):
        """Return what one process returned."""
        failed, answer = self.pipes[rank].recv()
        assert not failed, answer
        return answer

    def close(self):
        for process in self.processes:
            process.kill()
            process.join()


def _work(pipe, rank, number, store, timeout):
    torch.set_num_threads(1)
    timeout = timedelta(seconds=timeout)
    dist.init_process_group("gloo", store, timeout, number, rank)
    groups = {world: dist.new_group(range(world), timeout) for world in range(1, number + 1)}
    while True:
        world, work, arguments, options = pipe.recv()
        try:
            pipe.send((False, work(groups[world], *arguments, **options)))
        except Exception:
            pipe.send((True, f"rank {rank} of {world}: {traceback.format_exc()}"))
