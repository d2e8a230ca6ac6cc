"""Which tokens end an answer, and which token plays which part when the file does not say.

    ids of eos, eot, eom, fim_pad, fim_rep, fim_sep   +   every token spelled like one of ENDS   -   two exceptions

A part the file names no id for goes to the first token of the vocabulary spelled like one of SPELLINGS. Tokens found by
spelling become control tokens, whatever type the file gave them.

Except   <|end|> where both <|return|> and <|call|> (or <|calls|> and <|flush|>) end an answer: it ends a message only.
         </s> where <|tool_response> or <|plamo:eos|> ends an answer: it is ordinary text there.
Differs  llama.cpp makes <|channel|>, <|message|>, <|start|>, <|constrain|> and that <|end|> user-defined, to have them
         printed; then a user who types them gets them as tokens. Here they stay control tokens.
Source   llama_vocab::impl::load, src/llama-vocab.cpp of llama.cpp. It picks among several spellings in the order of a
         hash table; here the first listed wins. Only for fim_pad and fim_rep does the set depend on it.
"""

from collections.abc import Mapping

from refquant.text.token_type import TokenType

# part -> the keys under tokenizer.ggml., the last one present wins
ROLES: dict[str, tuple[str, ...]] = {
    "bos": ("bos_token_id",),
    "eos": ("eos_token_id",),
    "eot": ("eot_token_id",),  # end of turn
    "eom": ("eom_token_id",),  # end of message: a tool call follows
    "unknown": ("unknown_token_id",),
    "padding": ("padding_token_id",),
    "fim_pre": ("fim_pre_token_id", "prefix_token_id"),  # fill in the middle: <pre> before <suf> after <mid>
    "fim_suf": ("fim_suf_token_id", "suffix_token_id"),
    "fim_mid": ("fim_mid_token_id", "middle_token_id"),
    "fim_pad": ("fim_pad_token_id",),
    "fim_rep": ("fim_rep_token_id",),  # name of the repository
    "fim_sep": ("fim_sep_token_id",),  # between files
}

SPELLINGS: dict[str, tuple[str, ...]] = {
    "eot": (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"),
        *("<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"),
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>"),
        *("<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"),
    ),
    "fim_suf": (
        *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>"),
        *("<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"),
    ),
    "fim_mid": (
        *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>"),
        *("<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"),
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}

ENDS: tuple[str, ...] = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
)
PLAMO_EOS = "<|plamo:eos|>"


def resolve(
    ids: dict[str, int | None], index: Mapping[str, int], types: list[int]
) -> tuple[dict[str, int | None], list[int], frozenset[int]]:
    """(ids with the missing parts found by spelling, types with what was found a control token, what ends an answer).

    ids: part of ROLES -> id or None; index: text -> id; types: one TokenType a token.
    """
    ids, types = dict(ids), list(types)
    for part, texts in SPELLINGS.items():
        found = next((index[text] for text in texts if text in index), None)
        if ids[part] is None and found is not None:
            ids[part] = found
            types[found] = TokenType.CONTROL
    ends = {ids[part] for part in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")} - {None}
    for text in ENDS:
        if text in index:
            ends.add(index[text])
            types[index[text]] = TokenType.CONTROL

    spelled = {text for text in (*ENDS, PLAMO_EOS) if index.get(text) in ends}
    if "<|end|>" in spelled and ({"<|return|>", "<|call|>"} <= spelled or {"<|calls|>", "<|flush|>"} <= spelled):
        ends.remove(index["<|end|>"])
    if "</s>" in spelled and spelled & {"<|tool_response>", PLAMO_EOS}:
        ends.remove(index["</s>"])
        types[index["</s>"]] = TokenType.NORMAL
    return ids, types, frozenset(ends)
