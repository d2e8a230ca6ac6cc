"""One quantization in a process of its own: `python quantize_worker.py refquant|llama.cpp SOURCE TARGET TYPE THREADS`.

Prints one JSON object: seconds and processor seconds of the job itself, its peak of resident memory, the version. Ours
compiles its kernels before the clock starts, and says in how many seconds. llama.cpp's side imports the standard
library and llama_cpp only.
"""

import ctypes
import json
import resource
import sys
import time


def theirs(source: str, target: str, number: int, threads: int) -> dict:
    """llama_model_quantize with default parameters."""
    import llama_cpp

    log: list[bytes] = []
    callback = llama_cpp.llama_log_callback(lambda level, text, data: log.append(text))
    llama_cpp.llama_log_set(callback, None)
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = number, threads

    def job() -> None:
        if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
            raise RuntimeError(b"".join(log[-3:]).decode(errors="replace").strip())

    return {"version": f"llama-cpp-python {llama_cpp.__version__}"} | timed(job)


def ours(source: str, target: str, number: int, threads: int) -> dict:
    """runtime.quantization, the file flushed to the disk before it gets its name."""
    from refquant import __version__, gguf
    from refquant.gguf.file_types import lookup
    from runtime.compilation import prepare
    from runtime.quantization import kernels, run
    from runtime.quantization_plan import make_plan

    with gguf.open(source) as file:
        plan = make_plan(file, lookup(str(number)))
        began = time.perf_counter()
        prepare(kernels(plan))
        compiling = time.perf_counter() - began
        found = timed(lambda: run(plan, target, threads))
    return {"version": f"refquant {__version__}", "compiling": compiling} | found


def timed(job) -> dict:
    """Run it once."""
    began, used = time.perf_counter(), time.process_time()
    job()
    seconds, busy = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "cpu_seconds": busy, "peak": peak}


if __name__ == "__main__":
    engine, source, target, number, threads = sys.argv[1:]
    found = {"refquant": ours, "llama.cpp": theirs}[engine](source, target, int(number), int(threads))
    print(json.dumps(found))
