"""Folders of experts written here load in transformers with compressed-tensors and give our logits."""

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant import gguf
from refquant.models import Oracle
from refquant.pipeline import convert_to_gguf, oneshot

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENS = list(range(5, 25))


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_quantized_experts_give_our_logits_in_transformers(peer, tmp_path, kind):
    torch, transformers = peer("torch"), peer("transformers")
    peer("compressed_tensors")
    source = write_tiny_checkpoint(tmp_path / "m", kind, n_embd=128, n_ff=128)
    oneshot(source, "int4-g64", None, tmp_path / "q")
    convert_to_gguf(tmp_path / "q", tmp_path / "q.gguf", "F32")
    with gguf.open(tmp_path / "q.gguf") as file:
        ref = Oracle(file).logits(TOKENS)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "q", dtype=torch.float32).eval()
    with torch.no_grad():
        got = model(torch.tensor([TOKENS])).logits[0].numpy()
    np.testing.assert_allclose(got, ref, atol=1e-3)
