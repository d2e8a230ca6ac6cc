"""The side of a worker process: requests from standard input, answers to standard output, asleep in between.

A request is a line {"do": name, ...arguments}, an answer {"ok": true, ...results} or {"ok": false, "error": text}.
An answer with "nbytes" is followed by as many raw bytes. Imports the standard library only: the worker of another
engine runs under that engine's own Python.
"""

import json
import os
import sys
from collections.abc import Callable

Handler = Callable[..., dict | tuple[dict, bytes]]


def serve(handlers: dict[str, Handler]) -> None:
    """Answer until standard input ends. What libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            answer = handlers[request.pop("do")](**request)
        except Exception as error:  # the process that asked decides what it means
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        else:
            answer, raw = answer if isinstance(answer, tuple) else (answer, b"")
            answer = {"ok": True, **answer} | ({"nbytes": len(raw)} if raw else {})
        out.write(json.dumps(answer).encode() + b"\n")
        if "nbytes" in answer:
            out.write(raw)
        out.flush()
