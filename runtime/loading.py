"""From what the command line names to a model and a template that are ready, and refusals that say what to do instead.

Imports lie inside the functions: kernels and tokenizers take a while that `--help` need not wait for.
"""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from refquant.errors import QuantError, UnsupportedError

if TYPE_CHECKING:
    from refquant.gguf import GGUFFile
    from refquant.text import ChatTemplate
    from refquant.text.template_process import TemplateProcess
    from runtime.model import Model
    from runtime.session import Progress

DECODED = {"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"}  # types not in runtime.kernels, which takes long to import


def model_path(arguments: Namespace) -> Path:
    """The file named on the command line, or the model that comes with the package."""
    if arguments.model is not None:
        return Path(arguments.model)
    from runtime import bundled

    return Path(bundled.path())


def open_file(path: Path) -> "GGUFFile":
    """The file with its header read."""
    from refquant import gguf

    return gguf.open(path)


def memory_needed(file: "GGUFFile", arguments: Namespace) -> str:
    """A sentence about the memory the model will need. More than there is raises QuantError, unless --force."""
    from refquant import memory
    from refquant.gguf import FORMATS
    from runtime.model import DEFAULT_CONTEXT

    trained = memory.to_run(file).n_ctx
    n_ctx = min(trained, DEFAULT_CONTEXT) if arguments.ctx is None else arguments.ctx
    needs = memory.to_run(file, n_ctx, arguments.kv, kernels=FORMATS.keys() - DECODED)
    free = memory.available()
    if free is None:
        return f"memory {needs}"
    if needs.total > free and not arguments.force:
        if fits := needs.context_for(free) // 256 * 256:
            advice = f"--ctx {fits} fits"
        else:
            advice = "a smaller quantization of the model or more memory is needed"
        raise QuantError(
            f"{file.path}: needs {needs}, but {memory.human(free)} are free: {advice}; --force tries anyway"
        )
    return f"memory {needs}, {memory.human(free)} free"


def load_model(file: "GGUFFile", arguments: Namespace, progress: "Progress") -> "Model":
    """The model, ready to answer; it closes the file."""
    from runtime.model import Model

    return Model.load(file, n_ctx=arguments.ctx, threads=arguments.threads, kv_dtype=arguments.kv, progress=progress)


def template_process() -> "TemplateProcess":
    """The process that renders templates, started before the model is loaded, so that neither waits for the other."""
    from refquant.text.template_process import TemplateProcess

    return TemplateProcess()


def template_for(model: "Model", source: str | None, process: "TemplateProcess") -> "ChatTemplate":
    """The template `source`, or else the model's own."""
    from refquant.text import ChatTemplate

    if source is not None:
        return ChatTemplate(source, model.tokenizer, process=process)
    try:
        return ChatTemplate.from_gguf(model.gguf, model.tokenizer, process=process)
    except UnsupportedError as error:
        raise UnsupportedError(f"{error}: --chat-template FILE brings one, --raw -p TEXT does without") from error
