"""What a file is that is not GGUF, told from its first bytes, so that the refusal can say what to do."""

_STARTS = (
    (b"PK\x03\x04", "a zip archive, as PyTorch's .bin and .pt files are: convert the model to GGUF"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself: run `git lfs pull`"),
    (b"lmgg", "a GGML file of before August 2023: download or convert the model again"),
    (b"fmgg", "a GGMF file of before August 2023: download or convert the model again"),
    (b"tjgg", "a GGJT file of before August 2023: download or convert the model again"),
    (b"FUGG", "a GGUF file with its bytes swapped: convert it with gguf-py's gguf-convert-endian"),
    (b"\x89HDF", "an HDF5 file: convert the model to GGUF"),
    (b"\0\0\0\0", "zeros: the download reserved the space and did not fill it"),
)


def kind(first: bytes) -> str:
    """Words for the kind of file that begins with `first` (64 bytes do)."""
    for start, words in _STARTS:
        if first.startswith(start):
            return words
    if first[8:9] == b"{" and int.from_bytes(first[:8], "little") < 100 << 20:  # the limit of the safetensors library
        return "a safetensors file: convert the model to GGUF"
    text = first.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page: the link led to a page about the model, or to a login, and not to the file"
    if text.startswith((b"{", b"[")):
        return "JSON text: a configuration, or an error that a server answered with"
    return "an unknown kind of file"
