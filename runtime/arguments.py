"""The command line of the chat: options, what they mean, examples."""

import argparse
import sys

PROGRAM = "refquant-chat"
EXAMPLES = """\
examples:
  refquant-chat                                 chat with the small model that comes along
  refquant-chat model.gguf --ctx 4096           chat with a file of yours
  echo 'What is malloc?' | refquant-chat        one question a line from a pipe, answers to standard output
  refquant-chat model.gguf -p 'Why?' -n 64 --temp 0
                                                one answer; the same every time
  refquant-chat model.gguf --raw -p 'Once upon a time' -n 200
                                                continue a text as it is, without the chat template
  refquant-chat model.gguf -f question.txt --json 2>stats.json >answer.txt

Sampling options that are not given are taken from the model file where it recommends any.
Only answers go to standard output; statistics and messages go to standard error.
"""


class Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str):
        print(f"{self.prog}: {message} (--help lists the options)", file=sys.stderr)
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """The options of the chat."""
    p = Parser(
        prog=PROGRAM,
        usage="%(prog)s [MODEL] [options]",
        description="Chat with a Llama, Qwen2 or Qwen3 model from a GGUF file, on the CPU.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a GGUF file, of a split model the first one (default: the bundled model)",
    )

    what = p.add_argument_group("what to do (default: chat)")
    prompt = what.add_mutually_exclusive_group()
    prompt.add_argument("-p", "--prompt", metavar="TEXT", help="answer TEXT and end")
    prompt.add_argument("-f", "--file", metavar="FILE", help="answer the text in FILE and end; - is standard input")
    what.add_argument(
        "--raw", action="store_true", help="with -p or -f: continue the text as it is, without the chat template"
    )
    what.add_argument(
        "--special",
        action="store_true",
        help="with --raw: let spellings of control tokens in the text be control tokens",
    )
    what.add_argument(
        "-n", "--predict", type=int, metavar="N", help="at most N tokens an answer (default, or -1: until it ends)"
    )
    what.add_argument("--system", metavar="TEXT", help="the system message")
    what.add_argument("--chat-template", metavar="FILE", help="a Jinja template to use instead of the model's own")
    what.add_argument("--show-template", action="store_true", help="print the model's chat template and end")

    how = p.add_argument_group("sampling")
    how.add_argument(
        "--temp",
        type=float,
        metavar="T",
        dest="temperature",
        help="temperature; 0 always takes the likeliest token (0.8)",
    )
    how.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens; 0: all (40)")
    how.add_argument(
        "--top-p", type=float, metavar="P", help="draw from the likeliest tokens that make up P together; 1: all (0.95)"
    )
    how.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="draw from tokens at least P times as likely as the likeliest; 0: all (0.05)",
    )
    how.add_argument(
        "--repeat-penalty", type=float, metavar="R", help="make the last 64 tokens less likely; 1: off (1)"
    )
    how.add_argument(
        "--seed", type=int, metavar="S", help="draw the same text again (default, or -1: a new one each time)"
    )

    run = p.add_argument_group("resources")
    run.add_argument(
        "--ctx", type=int, metavar="N", help="tokens of context (default: what the model was trained for, at most 8192)"
    )
    run.add_argument("--threads", type=int, metavar="N", help="threads (default: the physical cores)")
    run.add_argument(
        "--kv", choices=("f16", "f32", "q8_0"), default="f16", help="type of the KV cache; q8_0 takes half of f16 (f16)"
    )
    run.add_argument("--force", action="store_true", help="load a model that seems too large for the free memory")

    show = p.add_argument_group("messages")
    show.add_argument(
        "-q", "--quiet", "--no-stats", action="store_true", help="no statistics, no progress, no notes: errors only"
    )
    show.add_argument("--json", action="store_true", help="with -p or -f: the statistics as one JSON object")
    return p


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parsed and consistent arguments; prints one line and exits with status 2 for others."""
    p = parser()
    a = p.parse_args(argv)
    once = a.prompt is not None or a.file is not None
    for option, needs, given in (
        ("--raw", "-p or -f", once),
        ("--json", "-p or -f", once),
        ("--special", "--raw", a.raw),
    ):
        if getattr(a, option[2:]) and not given:
            p.error(f"{option} needs {needs}")
    for option in ("system", "chat_template"):
        if a.raw and getattr(a, option) is not None:
            p.error(f"--{option.replace('_', '-')} has no effect with --raw")
    for option in ("ctx", "threads"):
        if getattr(a, option) is not None and getattr(a, option) < 1:
            p.error(f"--{option} {getattr(a, option)}: expected 1 or more")
    if a.predict == -1:
        a.predict = None
    if a.predict is not None and a.predict < 1:
        p.error(f"-n {a.predict}: expected 1 or more, or -1 for no limit")
    if a.seed == -1:
        a.seed = None
    return a
