"""Chat templates, Jinja programs from files: messages to the text of a prompt."""

from collections.abc import Iterator

from conformance.cases import Case

NOTES = {
    "Turns": {
        "kind": "ordinary",
        "description": "A question; and a system message, a question, an answer and a question.",
        "effect": "The model does not see whose turn it is: it answers for the user, or never stops.",
    },
    "NoPrompt": {
        "kind": "ordinary",
        "description": "Without the beginning of an answer.",
        "effect": "The model continues the question instead of answering it, or the other way round.",
    },
    "Unicode": {
        "kind": "edge",
        "description": "Characters of several bytes, quotes, braces and line ends in a message.",
        "effect": "Content is escaped, trimmed or run as a program.",
    },
    "Rejected": {
        "kind": "refusal",
        "description": "Two users in a row, or a system message, where the template raises an exception.",
        "effect": "A conversation that the model was never trained on is sent all the same.",
    },
}
USER = {"role": "user", "content": "What is malloc?"}
TALK = [
    USER,
    {"role": "assistant", "content": "It allocates memory."},
    {"role": "user", "content": "And free?"},
]
SYSTEM = {"role": "system", "content": "Be brief."}
ODD = {"role": "user", "content": " é 今天 {{ 7 * 7 }} 'a' \"b\" <tag>\n\nend "}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
REJECTS = {"llama-2": "two-users", "mistral": "two-users", "gemma": "system"}
TEMPLATES = ("bundled", "chatml", "gemma", "llama-2", "llama-3", "mistral", "phi-3", "qwen3")


def cases() -> Iterator[Case]:
    """Each template on each conversation."""
    talks = {
        "one": ("Turns", [USER], True),
        "talk": ("Turns", TALK, True),
        "system": ("Turns", [SYSTEM, *TALK], True),
        "no-prompt": ("NoPrompt", TALK[:2], False),
        "unicode": ("Unicode", [ODD], True),
        "two-users": ("Turns", [USER, USER], True),
    }
    for name in TEMPLATES:
        for label, (flag, messages, prompt) in talks.items():
            rejected = REJECTS.get(name) == label
            params = {"template": f"templates/{name}.jinja", "messages": messages, "add_generation_prompt": prompt}
            params |= TOKENS
            if rejected:
                yield Case(f"template.{name}", "refuse", label, "render", {}, params, ("Rejected",), "invalid")
            else:
                yield Case(f"template.{name}", "render", label, "render", {}, params, (flag,))
