"""The side that asks: one process an engine, alive for many measurements, idle while another one is measured."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from refquant.errors import QuantError

ROOT = Path(__file__).parents[1]


class Worker:
    """A worker process. A context manager: the process ends with it."""

    def __init__(self, script: str, python: str | None = None, variables: dict[str, str] | None = None):
        self.name = script
        self._process = subprocess.Popen(
            [python or sys.executable, str(ROOT / "benchmarks" / f"{script}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | (variables or {}),
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request; raw bytes that came with it under "raw". Raises QuantError for a refusal."""
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: reading says so, and why
        line = self._process.stdout.readline()
        if not line:
            raise QuantError(f"{self.name}: {do}: the process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise QuantError(f"{self.name}: {do}: {answer['error']}")
        if "nbytes" in answer:
            answer["raw"] = self._process.stdout.read(answer["nbytes"])
        return answer

    def cpu_seconds(self) -> float | None:
        """Processor time of all its threads so far, or None where the system does not say (proc(5), fields 14, 15)."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process: it leaves when nobody can ask any more."""
        with suppress(BrokenPipeError):  # a request that a process did not read before it ended is still in the buffer
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def ours(cache: str | None = None) -> Worker:
    """This runtime, with compiled kernels kept in the directory `cache`; None: where they always are."""
    return Worker("our_worker", variables={} if cache is None else {"REFQUANT_CACHE": cache})


def llama_cpp(python: str | None, flash: str = "auto", library: Path | None = None) -> tuple[Worker, dict[str, Any]]:
    """llama.cpp under `python`, and what it says of itself. Raises QuantError where it is not installed.

    library   directory of another build of llama.cpp's shared libraries, which llama-cpp-python takes for its own
    """
    try:
        worker = Worker("llama_worker", python, {} if library is None else {"LLAMA_CPP_LIB_PATH": str(library)})
    except OSError as error:
        raise QuantError(f"--llama-python {python}: {error.strerror}") from error
    try:
        return worker, worker.ask("about", flash=flash)
    except QuantError as error:
        worker.close()
        where = python or sys.executable
        hint = "pip install llama-cpp-python, or name a Python that has it with --llama-python"
        raise QuantError(f"llama_cpp cannot be imported by {where} ({error}): {hint}") from error
