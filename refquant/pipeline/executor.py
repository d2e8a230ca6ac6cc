"""Executors: where the tasks of a job run. Results come in the order of the tasks, so that nothing depends on where.

    with open_executor("threads") as executor:
        for result in executor.map(function, items): ...

    serial                here, one after the other
    threads               here, as many at a time as there are processors; "threads:4" for a number (the default)
    processes             in processes of this machine, as many; "processes:3"
    dask://HOST:PORT      on the workers of a Dask scheduler (dask.distributed, the extra `scale`)

A task is a function of a module and one item, both picklable: what they need of files they open by their paths, so that
workers must see the folders of model and result under the same names. Only so many tasks are under way at a time as
there are threads and one, or processes twice: memory does not grow with the number of tasks.

A worker that dies      its tasks run again on another one; a task on which RETRIES + 1 workers died is a QuantError.
The same bytes          a task computes with one thread of BLAS (blas.py), and whoever calls `map` combines results in
                        their order. Between machines with other processors or another NumPy last bits may differ.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol, TypeVar

from refquant.errors import QuantError, SchemeError, UnsupportedError
from refquant.pipeline import blas

Item, Made = TypeVar("Item"), TypeVar("Made")
RETRIES = 3
AHEAD = 2  # tasks that a worker has or waits for
CONNECT = 20  # seconds
KINDS = ("serial", "threads", "processes", "dask://HOST:PORT")


class Executor(Protocol):
    """A context manager, open while it is used."""

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """function(item) for every item, in their order; raises what a task raises."""


def open_executor(said: "str | Executor") -> AbstractContextManager[Executor]:
    """The executor of a spelling (see the module); one that is open already stays open.

    Raises SchemeError (unknown), UnsupportedError (dask.distributed is missing), QuantError (nobody at the address).
    """
    if not isinstance(said, str):
        return nullcontext(said)
    name, _, number = said.partition(":")
    if said.startswith("dask://") and len(said) > len("dask://"):
        return Dask("tcp://" + said.removeprefix("dask://"))
    if said == "serial":
        return Serial()
    if name in ("threads", "processes") and (not number or (number.isdecimal() and 0 < int(number) <= 4096)):
        count = int(number or processors())
        return Threads(count) if name == "threads" else Processes(count)
    raise SchemeError(f"executor: {said[:80]!r}, expected one of {', '.join(KINDS)}, or threads:4, processes:4")


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Serial:
    """One task after the other."""

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """See Executor."""
        return map(function, items)

    def __enter__(self) -> "Serial":
        self._threads = blas.set_threads(1)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._threads is not None:
            blas.set_threads(self._threads)


class Threads(Serial):
    """Tasks in threads of this process: NumPy's products and our encoders run at the same time."""

    def __init__(self, count: int):
        self._count = count

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """See Executor."""
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(self._count) as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(function, item))
                    if len(waiting) > self._count:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


class Processes:
    """Tasks in processes of this machine, begun anew (spawn): a script needs its `if __name__ == "__main__":`."""

    def __init__(self, count: int):
        self._count = count

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """See Executor."""
        waiting: deque[list] = deque()  # [item, future, processes that died on it]
        for item in items:
            waiting.append([item, self._submit(function, item, waiting), 0])
            if len(waiting) >= AHEAD * self._count:
                yield self._first(function, waiting)
        while waiting:
            yield self._first(function, waiting)

    def _first(self, function: Callable, waiting: deque[list]) -> object:
        while True:
            try:
                result = waiting[0][1].result()
                waiting.popleft()
                return result
            except BrokenProcessPool as error:
                waiting[0][2] += 1
                if waiting[0][2] > RETRIES:
                    raise QuantError(f"executor: {RETRIES + 1} processes died on one task: out of memory?") from error
                self._again(function, waiting)

    def _submit(self, function: Callable, item: object, waiting: deque[list]) -> Future:
        try:
            return self._pool.submit(_alone, function, item)
        except BrokenProcessPool:
            self._again(function, waiting)
            return self._pool.submit(_alone, function, item)

    def _again(self, function: Callable, waiting: deque[list]) -> None:
        """A pool is of no use after one of its processes has died: a new one for what is not done."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._new()
        for entry in waiting:
            if not entry[1].done() or entry[1].cancelled() or isinstance(entry[1].exception(), BrokenProcessPool):
                entry[1] = self._pool.submit(_alone, function, entry[0])

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._count, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> "Processes":
        self._pool = self._new()
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Dask:
    """Tasks on the workers of a Dask cluster; Dask runs those of a worker that died again."""

    def __init__(self, address: str):
        try:
            import distributed
        except ImportError as error:
            raise UnsupportedError("executor: dask.distributed is not installed, expected the extra `scale`") from error
        self._address, self._distributed = address, distributed

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """See Executor."""
        waiting: deque = deque()
        submit = partial(self._client.submit, _alone, function, pure=False, retries=RETRIES)
        try:
            for item in items:
                waiting.append(submit(item))
                if len(waiting) >= AHEAD * max(1, len(self._client.scheduler_info()["workers"])):
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            if waiting:
                self._client.cancel(list(waiting))

    def _result(self, future: object) -> object:
        try:
            return future.result()
        except self._distributed.KilledWorker as error:
            raise QuantError(f"executor: {error.last_worker}: workers died on one task again and again") from error

    def __enter__(self) -> "Dask":
        import dask

        self._config = dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"})
        try:
            self._client = self._distributed.Client(self._address, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            self._config.__exit__(None, None, None)
            raise QuantError(f"executor: no scheduler of Dask at {self._address}: {str(error)[:160]}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        self._config.__exit__(None, None, None)


def _alone(function: Callable[[Item], Made], item: Item) -> Made:
    """A task in a process of its own."""
    blas.set_threads(1)
    return function(item)
