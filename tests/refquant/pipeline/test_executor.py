"""Executors: order, errors, workers that die; and jobs whose bytes do not depend on where their tasks ran."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant.errors import QuantError, RangeError, SchemeError, UnsupportedError
from refquant.pipeline import blas, executor, oneshot, tasks
from refquant.pipeline.executor import open_executor

HERE = ["serial", "threads", "threads:3"]


def square(x: int) -> int:
    return x * x


def refuse(x: int) -> int:
    raise RangeError(f"task: x = {x}, expected another")


def die_once(folder: str, x: int) -> int:
    """Kill this process the first time that x = 3 comes along."""
    mark = Path(folder) / "died"
    if x == 3 and not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def die(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)


def ids(count: int = 6, length: int = 40) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(3, 200, length) for i in range(count)]


def contents(path: Path) -> dict[str, bytes]:
    return (
        {file.name: file.read_bytes() for file in sorted(path.iterdir())} if path.is_dir() else {"": path.read_bytes()}
    )


@pytest.mark.parametrize("name", HERE)
def test_results_come_in_the_order_of_the_items(name):
    with open_executor(name) as workers:
        assert list(workers.map(square, range(20))) == [x * x for x in range(20)]
        assert list(workers.map(square, [])) == []


@pytest.mark.parametrize("name", HERE)
def test_what_a_task_raises_is_raised_and_nothing_goes_on_after_it(name):
    with open_executor(name) as workers, pytest.raises(RangeError, match="x = 0, expected another"):
        list(workers.map(refuse, range(1000)))


@pytest.mark.parametrize("name", ["threads:2"])
def test_few_tasks_are_under_way_at_a_time(name):
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    with open_executor(name) as workers:
        results = workers.map(square, items())
        next(results)
        assert len(taken) <= 4
        results.close()


def test_blas_takes_one_thread_while_tasks_run_and_as_many_as_before_afterwards():
    before = blas.set_threads(2)
    if before is None:
        assert blas.set_threads(1) is None  # another BLAS: left alone
        return
    with open_executor("serial") as workers:
        assert list(workers.map(lambda _: blas.set_threads(1), [0])) == [1]
    assert blas.set_threads(before) == 2


def test_a_worker_process_that_dies_is_replaced_and_its_tasks_run_again(tmp_path):
    with open_executor("processes:2") as workers:
        assert list(workers.map(partial(die_once, str(tmp_path)), range(8))) == [x * x for x in range(8)]
        assert (tmp_path / "died").exists()
        with pytest.raises(RangeError, match="x = 0"):
            list(workers.map(refuse, range(3)))


def test_a_task_on_which_every_process_dies_is_an_error(monkeypatch):
    monkeypatch.setattr(executor, "RETRIES", 1)
    with open_executor("processes:1") as workers, pytest.raises(QuantError, match="2 processes died on one task"):
        list(workers.map(die, [0]))


@pytest.mark.parametrize("said", ["", "gpu", "threads:0", "threads:x", "dask://", "processes:-1", "serial:2"])
def test_executors_that_are_none_are_refused(said):
    with pytest.raises(SchemeError, match="expected one of serial, threads, processes, dask://HOST:PORT"):
        open_executor(said)


def test_without_dask_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UnsupportedError, match="expected the extra `scale`"):
        open_executor("dask://127.0.0.1:1")


JOBS = {
    "nearest": ("W4A16", None),
    "gptq": ({"scheme": "W4A16", "method": "gptq", "ignore": []}, ids()),
    "awq": ({"scheme": "W4A16", "method": "awq", "ignore": []}, ids()),
    "gguf": ("Q4_0", None),
}


@pytest.mark.parametrize("job", sorted(JOBS))
def test_threads_give_the_bytes_of_the_serial_run(tmp_path, job, monkeypatch):
    monkeypatch.setattr(tasks, "CHUNK", 100)  # three chunks
    source = write_tiny_checkpoint(tmp_path / "m", "qwen2", n_embd=128, n_ff=256, dtype="BF16")
    said, data = JOBS[job]
    for name in ("serial", "threads:3"):
        oneshot(source, said, data, tmp_path / name, executor=name)
    assert contents(tmp_path / "serial") == contents(tmp_path / "threads:3")


def test_processes_give_the_bytes_of_the_serial_run(tmp_path):
    source = write_tiny_checkpoint(tmp_path / "m", "mixtral", n_embd=128, n_ff=256, dtype="BF16")
    said, data = {"modifiers": [JOBS["awq"][0], JOBS["gptq"][0]]}, ids()
    oneshot(source, said, data, tmp_path / "serial", executor="serial")
    with open_executor("processes:2") as workers:
        oneshot(source, said, data, tmp_path / "processes", executor=workers)
        oneshot(source, "Q8_0", None, tmp_path / "p.gguf", executor=workers)
    oneshot(source, "Q8_0", None, tmp_path / "s.gguf", executor="serial")
    assert contents(tmp_path / "serial") == contents(tmp_path / "processes")
    assert contents(tmp_path / "s.gguf") == contents(tmp_path / "p.gguf")


def dying_in_the_second_block(mark: str) -> None:
    """In a worker of Dask: the first of all to round a layer of the second block kills itself while it does."""
    go = tasks.rounded

    def rounded(part, item):
        if part.index == 1:
            try:
                with open(mark, "x") as file:
                    file.write(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return go(part, item)

    tasks.rounded = rounded


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(120)
def test_three_dask_workers_give_the_bytes_of_the_serial_run_though_one_is_killed(peer, tmp_path, monkeypatch):
    distributed, dask = peer("distributed"), peer("dask")
    source = write_tiny_checkpoint(tmp_path / "m", "qwen2", n_embd=128, n_ff=256, dtype="BF16")
    monkeypatch.setattr(tasks, "CHUNK", 100)
    said, data = JOBS["gptq"][0], ids(12)  # six chunks
    oneshot(source, said, data, tmp_path / "serial", executor="serial")
    options = {"n_workers": 3, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    forked = dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})  # one import for all
    with forked, distributed.LocalCluster(**options) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            pids = set(client.run(os.getpid).values())
            client.run(dying_in_the_second_block, str(tmp_path / "died"))
        assert len(pids) == 3 and os.getpid() not in pids
        address = cluster.scheduler_address.removeprefix("tcp://")
        oneshot(source, said, data, tmp_path / "dask", executor=f"dask://{address}")
        killed = int((tmp_path / "died").read_text())
        assert killed in pids
        with pytest.raises(ProcessLookupError):
            os.kill(killed, 0)
        with open_executor(f"dask://{address}") as workers, pytest.raises(RangeError, match="x = 0"):
            list(workers.map(refuse, range(3)))
    assert contents(tmp_path / "serial") == contents(tmp_path / "dask")


@pytest.mark.filterwarnings("ignore")
def test_nobody_at_the_address_is_an_error(peer, monkeypatch):
    peer("distributed")
    monkeypatch.setattr(executor, "CONNECT", 0.5)
    began = time.monotonic()
    with (
        pytest.raises(QuantError, match=r"no scheduler of Dask at tcp://127\.0\.0\.1:9"),
        open_executor("dask://127.0.0.1:9"),
    ):
        pass
    assert time.monotonic() - began < 20
