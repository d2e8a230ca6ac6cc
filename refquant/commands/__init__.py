"""The commands of `python -m refquant`, a module each.

    fill(parser)               adds the arguments; may set description, epilog
    run(arguments) -> lines    does the work; raises QuantError for what the user can mend

COMMANDS names them in the order of --help. A module is imported when its command is called.
"""

COMMANDS = {
    "schemes": "list the formats that quantize() knows",
    "inspect": "show what a GGUF file holds",
    "diff": "compare two files, or two schemes on the same numbers",
    "detect": "tell the layout of the quantized weights in a checkpoint",
    "transcode": "write a checkpoint again in another layout, the same numbers",
    "explain": "say what a format of another framework means",
    "quantize": "quantize a Hugging Face folder or a GGUF file by a recipe",
    "estimate": "estimate the memory that a model takes",
    "report": "show what quantization did to a model, on one page of HTML",
}
