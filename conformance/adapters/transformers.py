"""Hugging Face transformers: chat templates as its tokenizers render them."""

from collections.abc import Mapping

import numpy as np

from conformance import vectors
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported

NAME = "transformers"


def version() -> str:
    """Of the package."""
    return installed("transformers")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """render of templates."""
    if not algorithm.startswith("template."):
        raise Unsupported(f"{algorithm} {op}")
    version()
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    with refusals(jinja2.exceptions.TemplateError):
        (text,), _ = render_jinja_template(
            conversations=[params["messages"]],
            chat_template=(vectors.ROOT / params["template"]).read_text("utf-8"),
            add_generation_prompt=params["add_generation_prompt"],
            bos_token=params["bos_token"],
            eos_token=params["eos_token"],
        )
    return {"text": np.frombuffer(text.encode("utf-8"), np.uint8)}
