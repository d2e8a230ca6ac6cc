"""Record what llama.cpp says: greedy continuations that tests/runtime/test_golden.py holds the runtime to.

    python tests/golden/record.py MODEL.gguf ...        writes tests/golden/<name of the file>.json

Run by hand, in an environment with `llama-cpp-python`, `gguf` and `numpy`; the suite reads only the JSON files.
For each of ten prompts llama.cpp evaluates the prompt in one batch and then one token a step, 64 times, always the
token with the largest logit (the first of equals), with no penalty and no stop at end-of-generation tokens. Keys and
values are kept in float32, flash attention is off, and one thread works: the settings nearest to exact arithmetic.

Each step keeps its two largest logits, so that a reader can tell a near-tie from an error. Matrices in BF16 are left
out on purpose: llama.cpp rounds activations to BF16 for them, which the F32 file of the same weights avoids.

Which ten: for float weights the first ones of the lists below. With quantized weights activations are rounded to 8
bits, the last bit of a float sum decides some of these roundings, and near-ties of the logits fall either way:
llama.cpp with flash attention parts from llama.cpp without it on 15 to 28 of 40 prompts, depending on the file. A text
that hangs on a near-tie says nothing about a runtime, so there the ten are those of whose tokens llama.cpp is surest:
whose smallest gap between the two largest logits, over the 64 steps, is largest. Nothing but llama.cpp's own logits
decides.

One record is
    file, made              the model file, and how to make it again
    sha256                  of the file that was used
    tensors_sha256          of names, types, shapes and bytes of its tensors alone (`tensors_digest`)
    recorder                versions and settings
    prompts[i]              special: whether spellings of control tokens in the text became control tokens
                            text, ids: the prompt, and its tokens with the BOS that the vocabulary asks for
                            next, answer: the 64 tokens, and the text by which they lengthen the prompt
                            top: per step [largest logit, second token, second logit], 4 decimals

The models come from the folder REFQUANT_TEST_DATA and from llama.cpp:
    stories260K-f32.gguf, tiny-qwen2-Q4_K_M.gguf     models/ of that folder
    tiny-*-F32.gguf                                  tools/hf_to_gguf.py models/tiny-* OUT --outtype f32
    tiny-*-Q8_0.gguf                                 llama_model_quantize of the F32 file, LLAMA_FTYPE_MOSTLY_Q8_0
    tiny-llama-Q4_0.gguf                             with LLAMA_FTYPE_MOSTLY_Q4_0, pure, and Q8_0 as output_tensor_type
"""

import ctypes
import hashlib
import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

STEPS = 64
CONTEXT = 512
VARIETY = 12
SETTINGS = "type_k = type_v = F32, flash attention off, n_threads = 1, greedy, no penalty, no stop"
LLAMA_CPP = "llama.cpp 0c1e57098 (ggml 0.25.3)"  # vendored by llama-cpp-python 0.3.36; the library cannot be asked

MADE = {
    "stories260K-f32": "models/stories260K-f32.gguf",
    "tiny-qwen2-F32": "tools/hf_to_gguf.py models/tiny-qwen2 OUT --outtype f32",
    "tiny-qwen2-Q8_0": "every matrix of tiny-qwen2-F32 in Q8_0: the tensors of runtime/bundled/tiny-chat-Q8_0.gguf",
    "tiny-qwen2-Q4_K_M": "models/tiny-qwen2-Q4_K_M.gguf",
    "tiny-llama-F32": "tools/hf_to_gguf.py models/tiny-llama OUT --outtype f32",
    "tiny-llama-Q8_0": "every matrix of tiny-llama-F32 in Q8_0",
    "tiny-llama-Q4_0": "every matrix of tiny-llama-F32 in Q4_0, output.weight in Q8_0",
}

STORIES = [
    "Once upon a time",
    "One day, a little girl named Lily",
    "Tom had a big red ball.",
    "The cat and the dog were best friends.",
    "It was a sunny day and Ben wanted to play",
    'Mom said, "',
    "In a small house near the forest there lived an old man who",
    "Sara was sad because",
    "The bird",
    "Tim saw a big box. He opened it and",
]
TOOLS = ("ls", "cp", "rm", "mv", "cat", "tail", "head", "sort", "cut", "awk", "sed", "find", "df", "du", "ps", "ssh")
TOOLS += ("mkdir", "echo", "diff", "gzip")
FUNCTIONS = ("fopen", "strlen", "memcpy", "printf", "getenv", "fork")
QUESTIONS = [
    "What does the tar command do?",
    "What is malloc?",
    'What does the word "harbour" mean?',
    "What does chmod do?",
    "Was heißt „Größe“ auf Englisch?",
    "How do I list the files of a directory?",
    "What is a file descriptor?",
    "Explain what an environment variable is.",
    "What does the option --help do?",
    "Name the capital of France — only one word.",
    "Write a sentence with the word café.",
    "How do I undo the last commit in git?",
    "What is the difference between a process and a thread?",
    "What is π?",
    "What does grep do?",
    "What is a compiler?",
    "How do I print a text file?",
    "What does the kill command do?",
    "What is a socket?",
    "What is the meaning of the word river?",
    "What does the option -v mean?",
    'What does the word "river" mean?',
    "Who are you?",
    "What is Python?",
    "What does open() return?",
    *(f"What does the {name} command do?" for name in TOOLS),
    *(f"What is {name}?" for name in FUNCTIONS),
]
DOCUMENTATION = [
    "The function returns zero on success. On error,",
    "Chapter 2. Getting Started\n\nThis chapter",
    "\tif (fd < 0)\n\t\treturn",
    "The résumé of the article — in short —",
    "Configure the server by editing the file",
    "int main(int argc, char *argv[])\n{\n    ",
    "Revolver n. One who, or that which, revolves; specifically,",
    "To install the package from source, unpack the archive, change into its directory and run",
    "A pointer is a variable that",
    "SELECT name, COUNT(*) FROM",
    "NAME\n       grep - print lines that match patterns\n\nDESCRIPTION\n       The grep utility",
    "Harbour n. [OE. herbor",
    "The kernel maps the pages of the file into memory when",
    "Permission is hereby granted",
    "If the value is negative, the",
    "SEE ALSO\n       ",
    "-v, --verbose\n",
    "def read_file(path):\n    ",
    "This option is only valid for",
    "EXIT STATUS\n       0  if OK, 1",
    "#include <",
    "$ sudo apt-get",
    "The default value is",
    "For more information, see the",
    "This program is distributed in the hope that it will be useful,",
    "Slowly adv. In a slow manner",
    "if (x == NULL)\n    return",
    "This manual page describes",
    "The first argument is the name of the",
    "Each line of the file",
    "See also the description of the",
    "NAME\n       ls - list directory contents\n\nSYNOPSIS\n       ls [",
    "The following example shows how to",
    "/* Return the number of bytes",
    "func (s *Server) Close() error {",
]


def prompts(name: str) -> list[list[tuple[bool, str]]]:
    """Lists of pairs (special, text): openings of stories, or questions in the chat format of the model and texts."""
    if name.startswith("stories"):
        return [[(False, text) for text in STORIES]]
    if name.startswith("tiny-qwen2"):
        system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        chat = [f"{system}<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n" for q in QUESTIONS]
    else:
        chat = [f"[INST] {q} [/INST]" for q in QUESTIONS]  # the template's <s> is the BOS that add_special brings
    return [[(True, text) for text in chat], [(False, text) for text in DOCUMENTATION]]


def tensors_digest(path: str) -> str:
    """SHA-256 over the tensors in order of name: "name type rows x columns" and a newline, then the bytes."""
    digest = hashlib.sha256()
    for tensor in sorted(gguf.GGUFReader(path).tensors, key=lambda t: t.name):
        shape = "x".join(str(n) for n in reversed(tensor.shape.tolist()))
        digest.update(f"{tensor.name} {tensor.tensor_type.name} {shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor.data).view(np.uint8).data)
    return digest.hexdigest()


class Reference:
    """One model in llama.cpp with float32 keys and values, no flash attention, one thread."""

    def __init__(self, path: str):
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
        assert self.model, f"{path}: llama.cpp cannot load it"
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text: str, special: bool) -> list[int]:
        raw = text.encode()
        ids = (llama_cpp.llama_token * (len(raw) + 8))()
        n = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), True, special)
        assert n > 0, text
        return ids[:n]

    def text(self, ids: list[int]) -> bytes:
        """What llama.cpp prints for the tokens, control tokens spelled out."""
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        out = ctypes.create_string_buffer(32 * len(ids))
        n = llama_cpp.llama_detokenize(self.vocab, tokens, len(ids), out, len(out), False, True)
        assert n >= 0, ids
        return out.raw[:n]

    def greedy(self, prompt: list[int]) -> tuple[list[int], list[list]]:
        """(tokens, top) of STEPS steps from an empty cache."""
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = llama_cpp.llama_init_from_model(self.model, params)
        tokens, top, batch = [], [], prompt
        for _ in range(STEPS):
            ids = (llama_cpp.llama_token * len(batch))(*batch)
            assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(batch))) == 0
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (self.n_vocab,))
            first, second = np.argsort(-logits, kind="stable")[:2].tolist()
            tokens.append(first)
            top.append([round(float(logits[first]), 4), second, round(float(logits[second]), 4)])
            batch = [first]
        llama_cpp.llama_free(context)
        return tokens, top

    def record(self, special: bool, text: str) -> dict:
        ids = self.tokenize(text, special)
        tokens, top = self.greedy(ids)
        answer = self.text(ids + tokens).removeprefix(self.text(ids)).decode("utf-8", errors="replace")
        return {"special": special, "text": text, "ids": ids, "next": tokens, "answer": answer, "top": top}


def smallest_gap(case: dict) -> float:
    """How sure llama.cpp is of its least sure token; nothing for a text that repeats fewer than VARIETY tokens."""
    varied = len(set(case["next"])) >= VARIETY
    return min(first - second for first, _, second in case["top"]) if varied else 0.0


def cases(reference: Reference, name: str) -> list[dict]:
    """The ten cases of a file, in the order of the lists, half of them from each."""
    lists = prompts(name)
    each = 10 // len(lists)
    if name.lower().endswith("-f32"):
        return [reference.record(*prompt) for prompts_of_a_kind in lists for prompt in prompts_of_a_kind[:each]]
    chosen = []
    for prompts_of_a_kind in lists:
        pool = [reference.record(*prompt) for prompt in prompts_of_a_kind]
        surest = sorted(pool, key=smallest_gap, reverse=True)[:each]
        chosen += [case for case in pool if case in surest]
    return chosen


def record(path: Path) -> dict:
    return {
        "file": path.name,
        "made": MADE[path.stem],
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tensors_sha256": tensors_digest(str(path)),
        "recorder": {
            "llama-cpp-python": llama_cpp.__version__,
            "llama.cpp": LLAMA_CPP,
            "system": llama_cpp.llama_print_system_info().decode().strip(" |"),
            "settings": SETTINGS,
        },
        "prompts": cases(Reference(str(path)), path.stem),
    }


def dumps(entry: dict) -> str:
    """JSON with one line a field and one line a field of a prompt, so that a change shows as a small diff."""
    compact = {"ensure_ascii": False, "separators": (",", ":")}
    fields = [f"{json.dumps(key)}: {json.dumps(entry[key], ensure_ascii=False)}" for key in entry if key != "prompts"]
    cases = [
        " {" + ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v, **compact)}" for k, v in case.items()) + "}"
        for case in entry["prompts"]
    ]
    return "{" + ",\n".join(fields) + ',\n"prompts": [\n' + ",\n".join(cases) + "\n]}\n"


def main() -> None:
    llama_cpp.llama_backend_init()
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, None)
    for argument in sys.argv[1:]:
        path = Path(argument)
        out = Path(__file__).with_name(f"{path.stem}.json")
        out.write_text(dumps(record(path)), encoding="utf-8")
        print(out)


if __name__ == "__main__":
    main()
