"""A program in any language as a backend: one JSON object a line over its standard input and output.

start -> name and version, run -> outputs | unsupported | refused | error, stop; README.md has the protocol.
"""

import json
import shlex
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from conformance.arrays import from_json, to_json
from conformance.protocol import Arrays, Refused, Unsupported

PROTOCOL = 1


class ProgramError(RuntimeError):
    """The program said that it failed, said something else than the protocol has, was silent, or died."""


class Program:
    """An adapter object. The program is started when first asked, and anew after it failed to answer."""

    def __init__(self, command: str, seconds: float = 60.0):
        self.command, self.seconds = command, seconds
        self._process: subprocess.Popen | None = None
        self._facts: Mapping[str, object] = {}

    @property
    def NAME(self) -> str:
        """What the program calls itself; the command until it was started."""
        return str(self._facts.get("name", self.command))

    def version(self) -> str:
        """As the program says it. Raises Unsupported where it cannot be started."""
        self._start()
        return str(self._facts.get("version", "unknown"))

    def run(self, algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
        """One test."""
        self._start()
        arrays = {name: to_json(array) for name, array in inputs.items()}
        said = self._ask({"cmd": "run", "algorithm": algorithm, "op": op, "params": dict(params), "inputs": arrays})
        if "outputs" in said:
            return {name: from_json(array, Path()) for name, array in said["outputs"].items()}
        if "unsupported" in said:
            raise Unsupported(str(said["unsupported"]))
        if "refused" in said:
            raise Refused(str(said["refused"]))
        raise ProgramError(str(said.get("error", f"{sorted(said)}, expected outputs, unsupported, refused or error")))

    def close(self) -> None:
        """Ask the program to stop, and end it if it does not."""
        if self._process is not None:
            self._end('{"cmd": "stop"}\n')

    def _start(self) -> None:
        if self._process is not None:
            return
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                shlex.split(self.command), stdin=pipe, stdout=pipe, text=True, encoding="utf-8", bufsize=1
            )
        except OSError as error:
            raise Unsupported(f"{self.command}: {error}") from error
        self._facts = self._ask({"cmd": "start", "protocol": PROTOCOL})

    def _ask(self, request: Mapping[str, object]) -> dict[str, object]:
        alarm = threading.Timer(self.seconds, self._process.kill)
        alarm.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            said = json.loads(line) if line else None
        except (OSError, ValueError) as error:
            said, line = None, str(error)
        finally:
            alarm.cancel()
        if not isinstance(said, dict):
            self._end()
            raise ProgramError(f"{self.command}: {line[:80]!r}, expected a JSON object within {self.seconds:g} s")
        return said

    def _end(self, farewell: str = "") -> None:
        process, self._process = self._process, None
        try:
            process.communicate(farewell, timeout=2 if farewell else 0)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            process.kill()
            process.communicate()
