"""Text: tokenizers and chat templates, from what a GGUF file says of itself.

    Tokenizer       text <-> ids                                   tokenizer.py
    ChatTemplate    messages -> prompt, as text or as ids          chat_template.py
    StreamDecoder   ids one by one -> text, whole characters only  detokenizer.py

Ids are those of llama.cpp, for SentencePiece vocabularies (`tokenizer.ggml.model` "llama") and byte-level byte pairs
("gpt2"). The packages `sentencepiece`, `tokenizers` and `jinja2` are imported when something first needs them.
"""

from refquant.text.chat_template import ChatTemplate
from refquant.text.detokenizer import StreamDecoder
from refquant.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "StreamDecoder", "Tokenizer"]
