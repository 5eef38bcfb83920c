"""Small trained tokenizers of the kinds that published models have."""

import json
from functools import cache

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

KINDS = ("qwen", "gpt2", "gemma")
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 and Qwen3 cut text before they tokenize it."""
_SPECIAL = ["<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
_TEXTS = [
    "system\nuser\nassistant\nanswer\n\nSure, here it is: one.\n\n\nNo.\n \nI cannot\n\t\nhelp",
    "USER: what is it? ASSISTANT: a kite\n\nUSER:\nwhat?\n\n ASSISTANT:\nassistants assist\n    x",
    "### Instruction:\nsay\n\n### Response:\n\nsaid\n  \n\n### Response:\n1. this\n  2. that://a\r\n",
]


@cache
def _core(kind: str) -> str:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")
    core = Tokenizer(models.BPE(byte_fallback=kind == "gemma"))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "gemma":
        core.normalizer, alphabet = normalizers.Replace(" ", "▁"), []
        core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+|▁?[^▁\n]+|▁+"), "isolated")
        back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        core.decoder = decoders.Sequence(back)
    elif kind == "qwen":
        split = pre_tokenizers.Split(Regex(QWEN), "isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        core.decoder = decoders.ByteLevel()
    else:
        core.pre_tokenizer, core.decoder = byte_level, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=_SPECIAL, show_progress=False, initial_alphabet=alphabet
    )
    core.train_from_iterator(_TEXTS * 2, trainer)
    if kind != "gemma":
        return core.to_str()
    core.pre_tokenizer = None  # whole texts are merged, and what has no piece is bytes
    state = json.loads(core.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary.update({f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)})
    return json.dumps(state)


def tokenizer(kind: str, template: str) -> transformers.PreTrainedTokenizerFast:
    """One of `KINDS`: byte-level with the cuts of Qwen or GPT-2, or pieces with byte fallback."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_core(kind)), chat_template=template,
        bos_token="<bos>", eos_token="<eos>", clean_up_tokenization_spaces=False,
    )  # fmt: skip


class Longest(transformers.PreTrainedTokenizer):
    """A slow tokenizer: the longest token of its vocabulary that the text goes on with."""

    def __init__(self, words: list[str], **options) -> None:
        self.words = {word: i for i, word in enumerate(words)}
        super().__init__(**options)

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return {**self.words, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **_) -> list[str]:
        tokens = []
        while text:
            fits = [word for word in self.words if text.startswith(word)]
            tokens.append(max(fits, key=len, default=text[0]))
            text = text[len(tokens[-1]) :]
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self.words)[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)
