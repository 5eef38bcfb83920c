"""No family is built inside a serving engine that does not say what to steer.

Text-only models above all: their tokens are in sight, but not where a header was cut.
"""

import pytest
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def test_vllm_alone_builds_no_family(pair, monkeypatch):
    monkeypatch.setitem(
        ALL_ATTENTION_FUNCTIONS._global_mapping, "vllm", ALL_ATTENTION_FUNCTIONS["sdpa"]
    )
    config = transformers.AutoConfig.from_pretrained(pair.directory, trust_remote_code=True)
    config.get_text_config()._attn_implementation = "vllm"  # as its Transformers backend does
    with pytest.raises(RuntimeError, match="vllm would serve it without steering"):
        transformers.AutoModel.from_config(config, trust_remote_code=True)
