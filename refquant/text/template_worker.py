"""The process that renders chat templates. Run by path, it imports nothing of this package and starts in a blink.

    out   {"ready": true}   once jinja2 is imported, then one line for each line that comes in
    in    {"source": template, "variables": {..}, "characters": longest result, "seconds": time after which to die}
    out   {"text": result}   or {"raised": message of raise_exception}   or {"error": what went wrong}

A template comes with a model file, from anybody. It runs in jinja2's immutable sandbox, in a process of its own, which
its owner kills when time is up, and which on Linux may use 512 MiB and write no file.

What a template finds is what the package transformers gives it: trim_blocks and lstrip_blocks, `break` and `continue`,
{% generation %} (here without effect), raise_exception, strftime_now, and a tojson that escapes nothing for HTML, keeps
non-ASCII characters and the order of keys.
Source   utils/chat_template_utils.py of transformers.
"""

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path

MEMORY = 1 << 29
MAX_MESSAGE = 500


class Raised(Exception):
    """A template called raise_exception."""


def main() -> None:
    """Answer requests until the input ends."""
    compiled = lru_cache(maxsize=8)(environment().from_string)
    limit_resources()
    answer({"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        with deadline(request["seconds"]):
            answer(render(compiled, request["source"], request["variables"], request["characters"]))


def render(compiled: Callable, source: str, variables: Mapping[str, object], characters: int) -> dict[str, str]:
    """The answer to one request; every failure of a template is one, as its message."""
    from jinja2 import TemplateSyntaxError

    pieces, length = [], 0
    try:
        for piece in compiled(source).generate(variables):
            pieces.append(piece)
            length += len(piece)
            if length > characters:
                return {"error": f"the result is longer than {characters} characters"}
        return {"text": "".join(pieces)}
    except Raised as error:
        return {"raised": str(error)[:MAX_MESSAGE]}
    except TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}: {error.message}"[:MAX_MESSAGE]}
    except MemoryError:
        return {"error": "out of memory"}
    except RecursionError:
        return {"error": "too deep a recursion"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:MAX_MESSAGE]}


def environment():  # -> jinja2.Environment, which is imported here only
    """The sandbox with what templates expect to find in it."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """One that says at once what it forbids; jinja2's prints nothing until the forbidden value is used."""

        def unsafe_undefined(self, obj, attribute):
            raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe")

    class Generation(Extension):
        """{% generation %} marks what an assistant said, for training: here its body as it is."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 reads a set

        def parse(self, parser):
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    env = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    env.filters["tojson"] = to_json
    env.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return env


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """The filter `tojson` as transformers has it."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: object) -> None:
    """What templates call when messages are not as they want them."""
    raise Raised(message)


def strftime_now(form: str) -> str:
    """The local date and time, for templates that state it."""
    return datetime.now().strftime(form)


def limit_resources() -> None:
    """Forbid files and core dumps where the system can, and on Linux more than MEMORY beyond what is in use."""
    try:
        import resource
    except ImportError:
        return
    limits = {"RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limits["RLIMIT_AS"] = pages * resource.getpagesize() + MEMORY
    for name, most in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))


@contextlib.contextmanager
def deadline(seconds: int):
    """Let the system end this process after `seconds`, in case its owner is gone; only where there are alarms."""
    alarm = getattr(signal, "alarm", lambda _: 0)
    alarm(seconds)
    yield
    alarm(0)


def answer(message: dict[str, object]) -> None:
    """Write one line."""
    sys.stdout.buffer.write(json.dumps(message).encode("ascii") + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
