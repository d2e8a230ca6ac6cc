"""The name of the CPU and its flags."""

import pytest

from runtime.processor import processor

X86 = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu sse2 avx2 avx512_vnni fma\n\nprocessor\t: 1\nmodel name\t: B"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp crc32 i8mm\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize("text, flags", [(X86, ("avx2", "avx512_vnni", "fma")), (ARM, ("asimd", "asimddp", "i8mm"))])
def test_flags_that_matter_are_kept(tmp_path, text, flags):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    name, got = processor(tmp_path)
    assert got == flags
    assert (name == "A CPU") == (text == X86)


def test_without_proc_there_is_a_name(tmp_path):
    name, flags = processor(tmp_path)
    assert name
    assert flags == ()
