"""Chat templates for files that bring none: the format that the control tokens of a vocabulary suggest."""

from refquant.errors import UnsupportedError
from refquant.text.vocabulary import Vocabulary

CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}"""

LLAMA3 = """\
{{ bos_token }}
{%- for message in messages %}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

LLAMA2 = """\
{% set ns = namespace(system='') %}
{% for message in messages %}
{% if message['role'] == 'system' %}
{% set ns.system = '<<SYS>>\\n' + message['content'] | trim + '\\n<</SYS>>\\n\\n' %}
{% elif message['role'] == 'assistant' %}
{{ ' ' + message['content'] | trim + ' ' + eos_token }}
{%- else %}
{{ bos_token + '[INST] ' + ns.system + message['content'] | trim + ' [/INST]' }}
{%- set ns.system = '' %}
{% endif %}
{% endfor %}"""


def choose(vocabulary: Vocabulary) -> tuple[str, str]:
    """(template, name of its format). Raises UnsupportedError where nothing suggests itself."""
    known = vocabulary.index.keys()
    if {"<|im_start|>", "<|im_end|>"} <= known:
        return CHATML, "ChatML"
    if {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"} <= known:
        return LLAMA3, "Llama 3"
    if vocabulary.model == "llama" and {"<s>", "</s>"} <= known:
        return LLAMA2, "Llama 2"
    raise UnsupportedError(
        f"{vocabulary.path}: tokenizer.chat_template is missing, and no token tells the format, expected a template"
    )
