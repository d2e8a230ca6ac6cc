"""Folders that transformers saves itself, sharded and with the names of its own version, open here as what they are."""

import numpy as np
import pytest
from tiny_checkpoints import CLASSES, write_tiny_checkpoint

from refquant import gguf
from refquant.models import Oracle
from refquant.pipeline import convert_to_gguf, open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENS = np.random.default_rng(7).integers(3, 250, (1, 24))


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_folders_of_save_pretrained_open_and_give_the_logits_of_transformers(peer, tmp_path, kind):
    torch, transformers = peer("torch"), peer("transformers")
    source = write_tiny_checkpoint(tmp_path / "m", kind)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    theirs.save_pretrained(tmp_path / "saved", max_shard_size="100KB")
    saved = open_checkpoint(tmp_path / "saved")
    assert len(set(saved.files.values())) > 1 and saved.unused == ()
    convert_to_gguf(saved, tmp_path / "m.gguf", "F32", with_vocabulary=False)
    with gguf.open(tmp_path / "m.gguf") as file, torch.no_grad():
        ref = Oracle(file).logits(TOKENS[0])
        np.testing.assert_allclose(theirs(torch.tensor(TOKENS)).logits[0].numpy(), ref, atol=1e-3)
