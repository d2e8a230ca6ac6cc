"""What llama.cpp makes of texts: run by an interpreter that has llama-cpp-python, questions in, answers out.

    question   {"path": a GGUF file, "texts": [..]}      one JSON object a line
    answer     {"plain": [ids, ..], "special": [..], "bos": .., "eos": .., "eot": .., "eog": [..], "pieces": ..}

plain: add_special and parse_special off; special: both on. pieces: SHA-256 of what every token prints, special ones
too, with a byte 0 after each.
"""

import ctypes
import hashlib
import json
import sys

import llama_cpp


def main() -> None:
    for line in sys.stdin:
        question = json.loads(line)
        model = llama_cpp.Llama(question["path"], vocab_only=True, verbose=False)
        texts = [text.encode("utf-8") for text in question["texts"]]
        vocab = llama_cpp.llama_model_get_vocab(model._model.model)
        count = llama_cpp.llama_vocab_n_tokens(vocab)
        answer = {
            "plain": [model.tokenize(text, add_bos=False, special=False) for text in texts],
            "special": [model.tokenize(text, add_bos=True, special=True) for text in texts],
            "bos": llama_cpp.llama_vocab_bos(vocab),
            "eos": llama_cpp.llama_vocab_eos(vocab),
            "eot": llama_cpp.llama_vocab_eot(vocab),
            "eog": [i for i in range(count) if llama_cpp.llama_vocab_is_eog(vocab, i)],
            "pieces": hashlib.sha256(b"".join(piece(vocab, i) + b"\0" for i in range(count))).hexdigest(),
        }
        print(json.dumps(answer), flush=True)
        model.close()


def piece(vocab: object, i: int) -> bytes:
    """What token i prints."""
    room = ctypes.create_string_buffer(1 << 10)
    length = llama_cpp.llama_token_to_piece(vocab, i, room, len(room), 0, True)
    return room.raw[:length]


if __name__ == "__main__":
    main()
