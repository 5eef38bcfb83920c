"""Tokenizer, processor and untrained model of a family."""

from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .corpus import Corpus, Mixture
from .families import Family

VOCABULARY = 1536
"""Size of the vocabulary: 256 bytes, the special tokens, and merges."""
_SENTENCES = 20_000


def build_tokenizer(family: Family) -> Any:
    """Train a byte-level BPE on the corpus; any text can be encoded."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=family.special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    examples = Corpus(family.modalities, 1, Mixture(), seed=0).draw(_SENTENCES)
    turns = ("user\n", "model\n", "assistant\n")
    words = (w for e in examples for t in e.turns for w in (t.prompt, t.answer))
    bpe.train_from_iterator([*turns, *words], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=family.pad,
        bos_token=family.bos,
        eos_token=family.turn_end,
        extra_special_tokens=family.tokens,
        clean_up_tokenization_spaces=False,
        **family.tokenizer,
    )


def build_processor(family: Family) -> Any:
    """Build the family's own processor.

    Raises:
        ImportError: If the family needs torchvision and it is missing.
    """
    parts = {"tokenizer": build_tokenizer(family), "chat_template": family.template}
    sources = {
        "image_processor": family.image_processor,
        "video_processor": family.video_processor,
        "feature_extractor": family.feature_extractor,
    }
    for name, source in sources.items():
        if source is not None:
            parts[name] = getattr(transformers, source[0])(**source[1])
    return getattr(transformers, family.processor_class)(**parts, **family.processor)


def build_model(family: Family, tokenizer: Any) -> Any:
    """Build the model with random float32 weights, from the global seed."""
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    ids = {k: tokenizer.convert_tokens_to_ids(t) for k, t in family.config_tokens.items()}
    text = {**family.config["text_config"], **special, "vocab_size": len(tokenizer)}
    config = getattr(transformers, family.config_class)(
        **{**family.config, "text_config": text}, **ids
    )
    model = getattr(transformers, family.model_class)(config)
    model.generation_config = transformers.GenerationConfig(
        **special, do_sample=False, max_new_tokens=48
    )
    return model
