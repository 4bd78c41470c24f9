"""Who makes the shards: processes of this machine, or a Ray cluster. Both make the same bytes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

from ...entropy.errors import CodecError, UnsupportedError
from .shard import ShardJob, pack_shard

Step = Callable[[int], None]


def run(jobs: list[ShardJob], engine: str, workers: int | None, address: str | None, step: Step) -> None:
    """Make all shards; ``step`` is called with numbers of samples done.

    Raises:
        CodecError: the first error of a worker; workers that were lost for good.
    """
    if engine == "ray":
        _run_ray(jobs, workers, address, step)
        return
    count = min(len(jobs), workers or os.cpu_count() or 1)
    if count == 1:
        with _one_thread():
            for job in jobs:
                pack_shard(job, step)
    else:
        _run_processes(jobs, count, step)


# --- this machine ------------------------------------------------------------------------------------------------


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch, as the workers have: small pictures gain nothing from more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Stopped(BaseException):
    """Another shard has failed, or the user has had enough; no error that a sample's could be taken for."""


_counter: Any = None
_working = False


def _start_worker(counter: Any) -> None:
    """In a new process: follow the parent into death, leave interrupts to it, use one thread."""
    import torch

    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(1)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _stop(number: int, frame: Any) -> None:
    """End at once; out of a shard by way of what removes its files."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if _working:
        raise _Stopped
    os._exit(1)


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody waits for the shard: what there is of it is cleaned up by the next run


def _count(samples: int) -> None:
    with _counter.get_lock():
        _counter.value += samples


def _work(job: ShardJob) -> str:
    global _working
    with suppress(_Stopped):
        try:
            _working = True
            return pack_shard(job, _count)
        finally:
            _working = False
    os._exit(1)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started here never see an interrupt, not even while they load torch; ours comes afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_script() -> Iterator[None]:
    """Processes started here do not run the user's script again: they need nothing of it, and it need not have a
    ``if __name__ == "__main__"``."""
    main = sys.modules["__main__"].__dict__
    kept = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        del main["__spec__"]
        main.update(kept)


def _run_processes(jobs: list[ShardJob], workers: int, step: Step) -> None:
    spawn = multiprocessing.get_context("spawn")  # threads of torch and of the coder do not survive a fork
    counter, reported = spawn.Value("q", 0), 0

    def report() -> None:
        nonlocal reported
        now = counter.value
        if now != reported:
            step(now - reported)
            reported = now

    with ProcessPoolExecutor(workers, spawn, _start_worker, (counter,)) as pool:
        try:
            with _without_script(), _interrupts_held():
                waiting: set[Future[str]] = {pool.submit(_work, job) for job in jobs}
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                report()
        except BaseException as error:
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()  # a sample may take minutes
            if isinstance(error, BrokenProcessPool):
                raise CodecError(
                    "a worker process was killed, perhaps for want of memory; run pack again to go on, with fewer jobs"
                ) from error
            raise


# --- Ray ---------------------------------------------------------------------------------------------------------

_RETRIES = 3


def _run_ray(jobs: list[ShardJob], workers: int | None, address: str | None, step: Step) -> None:
    """Actors take shards one after the other; a shard whose worker is lost is made again by the restarted one.

    Without an address a Ray of its own is started on this machine and shut down afterwards. On a cluster source and
    target must be paths that all machines share. One CPU at least stays free for Ray itself.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.exceptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UnsupportedError("engine 'ray' needs Ray: pip install latentzip[ray]") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING
        )
    try:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        count = max(1, min(len(jobs), workers or cpus, cpus - 1))
        actor = ray.remote(num_cpus=1, max_restarts=_RETRIES, max_task_retries=_RETRIES)(_Packer)
        actors = [actor.remote() for _ in range(count)]
        todo, running = list(reversed(jobs)), {}

        def submit(worker: Any) -> None:
            if todo:
                job = todo.pop()
                running[worker.pack.remote(job)] = (worker, job)

        for worker in actors:
            submit(worker)
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            worker, job = running.pop(ready)
            ray.get(ready)
            step(len(job.samples))
            submit(worker)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, CodecError) else CodecError(str(error))) from error
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise CodecError(f"Ray gave up: {' '.join(str(error).split())[:500]}; run pack again to go on") from error
    finally:
        if ours:
            ray.shutdown()


class _Packer:
    """A Ray actor: one process that makes shards on one thread."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)

    def pack(self, job: ShardJob) -> str:
        return pack_shard(job)
