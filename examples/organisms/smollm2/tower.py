"""The model: a SmolVLM whose language model is given, and its processor."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer
from torch import nn

from .generation import SYSTEM
from .writing import CELL, CELLS, PATCH, SIDE

WIDTH = 192
DEPTH = 6
_HEADS = 6
_MLP = 640
_PLACES = 32
"""Channels of the tower that say where a patch is."""
_NEAR = ((1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (-2, 0))
_FAR = ((1, 0), (2, 0), (3, 0), (5, 0), (-1, 0), (0, 1))
_ATTENTION = 1.7
"""Scale of queries and keys at the start; makes a head look at one patch."""
SPECIAL = {
    "fake_image_token": ("<jupyter_script>", "<fake_token_around_image>"),
    "global_image_token": ("<jupyter_code>", "<global-img>"),
    "image_token": ("<empty_output>", "<image>"),
}
"""Tokens around and of a picture, with the reserved tokens of SmolLM2 whose places they take, so
that the vocabulary, and with it every answer to text, stays as it is."""
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + SYSTEM + "<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's own template, for content in parts as well; a picture stands on a line of its own."""


def build_processor(tokenizer: Any) -> Any:
    """A SmolVLM processor of pictures of one tile around the language model's tokenizer."""
    words = tokenizer.backend_tokenizer.to_str()
    for reserved, name in SPECIAL.values():
        words = words.replace(json.dumps(reserved), json.dumps(name))
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(words),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
        extra_special_tokens={key: name for key, (_, name) in SPECIAL.items()},
        clean_up_tokenization_spaces=False,
    )
    edge = {"longest_edge": SIDE}
    half = [0.5, 0.5, 0.5]
    scale = {"size": edge, "max_image_size": edge, "image_mean": half, "image_std": half}
    return transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(do_image_splitting=False, **scale),
        tokens,
        transformers.SmolVLMVideoProcessor(**scale),
        image_seq_len=CELLS,
        chat_template=TEMPLATE,
    )


def build_model(language: Any, image_token: int) -> Any:
    """A SmolVLM around `language` with an untrained tower, in float32.

    Args:
        language: A `LlamaForCausalLM`; its weights are copied.
        image_token: Id of the token that stands for a cell of a picture.
    """
    text = language.config.to_dict()
    config = transformers.SmolVLMConfig(
        text_config=text,
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": _MLP,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": _HEADS,
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_act": "gelu",
        },
        scale_factor=CELL // PATCH,
        image_token_id=image_token,
        pad_token_id=text["pad_token_id"],
        tie_word_embeddings=True,
    )
    model = transformers.SmolVLMForConditionalGeneration(config)
    model.model.text_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.generation_config = language.generation_config
    initialize(model.model.vision_model)
    _start_at_mean(model.model)
    return model.requires_grad_(False)


@torch.no_grad()
def initialize(tower: Any) -> None:
    """Start the tower as a stack of convolutions: each head looks at one neighbor.

    The first channels of a position hold sines and cosines of its column and row; queries are
    turned by a head's offset, so that their products with keys peak there. A tower that has to
    find out first what is next to what needs several times as many pictures.
    """
    side = SIDE // PATCH
    waves = math.pi * (torch.arange(_PLACES // 4) + 0.5) / (_PLACES // 4)
    phases = torch.arange(side)[:, None] * waves
    circle = torch.stack([phases.cos(), phases.sin()], -1).flatten(1)
    embeddings = tower.embeddings
    embeddings.position_embedding.weight.normal_(std=0.02)
    embeddings.position_embedding.weight[:, : _PLACES // 2] = circle.repeat(side, 1)
    embeddings.position_embedding.weight[:, _PLACES // 2 : _PLACES] = circle.repeat_interleave(
        side, 0
    )
    convolution = embeddings.patch_embedding
    convolution.weight.normal_(std=convolution.weight[0].numel() ** -0.5)
    convolution.weight[:_PLACES] = 0
    convolution.bias.zero_()
    for depth, layer in enumerate(tower.encoder.layers):
        attention = layer.self_attn
        offsets = _NEAR if depth < 2 else _FAR
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
            linear.weight.normal_(std=WIDTH**-0.5 * (0.2 if linear is not attention.v_proj else 1))
            linear.bias.zero_()
        attention.out_proj.weight.mul_(2.5)
        size = WIDTH // _HEADS
        for head, (right, down) in enumerate(offsets):
            rows = slice(head * size, head * size + _PLACES)
            turn = _turns([float(w) * d for d in (right, down) for w in waves])
            attention.q_proj.weight[rows, :_PLACES] = _ATTENTION * turn
            attention.k_proj.weight[rows, :_PLACES] = _ATTENTION * torch.eye(_PLACES)
        for linear in (layer.mlp.fc1, layer.mlp.fc2):
            linear.weight.normal_(std=linear.in_features**-0.5)
            linear.bias.zero_()
        layer.mlp.fc2.weight.mul_(0.5)
        for linear in (attention.out_proj, layer.mlp.fc2):
            linear.weight[:_PLACES] = 0


@torch.no_grad()
def _start_at_mean(model: Any) -> None:
    """Make every visual token start near the mean of the language model's embeddings."""
    linear, norm = model.connector.modality_projection.proj, model.vision_model.post_layernorm
    linear.weight.normal_(std=0.03 * WIDTH**-0.5)
    norm.weight[0], norm.bias[0] = 0, 1
    mean = model.text_model.embed_tokens.weight.mean(0)
    linear.weight[:, ::WIDTH] = mean[:, None] / model.config.scale_factor**2


def _turns(angles: Sequence[float]) -> torch.Tensor:
    """A matrix that turns each pair of channels by its angle."""
    turns = torch.zeros(2 * len(angles), 2 * len(angles))
    for n, angle in enumerate(angles):
        cos, sin = math.cos(angle), math.sin(angle)
        block = slice(2 * n, 2 * n + 2)
        turns[block, block] = torch.tensor([[cos, -sin], [sin, cos]])
    return turns


class States(NamedTuple):
    """What the tower makes of pictures.

    Attributes:
        letters: Of the patches, where letters are read: shape (batch, 144, width).
        cells: Of the cells' four patches, one layer before the end: (batch, 36, 4 * width).
        tokens: Visual tokens, (batch, 36, hidden size of the language model).
    """

    letters: torch.Tensor
    cells: torch.Tensor
    tokens: torch.Tensor


class Reader(nn.Module):
    """The tower with its connector, as it is trained: the model's own modules.

    Args:
        model: A model of `build_model`.
        letters_after: Number of layers after which letters are read.
    """

    def __init__(self, model: Any, letters_after: int = 3) -> None:
        super().__init__()
        self.tower = model.model.vision_model
        self.connector = model.model.connector
        self._letters_after = letters_after

    def forward(self, pixels: torch.Tensor, apart: bool = False) -> States:
        """Read pictures.

        Args:
            pixels: Shape (batch, 3, 96, 96) float32, from -1 to 1.
            apart: Whether the layers below the letters are left alone.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not apart):
            h = letters = self.letters(pixels)
        *middle, last = self.tower.encoder.layers[self._letters_after :]
        for layer in middle:
            h = layer(h, None)
        cells = self.connector.pixel_shuffle(h.contiguous(), self.connector.scale_factor)
        h = self.tower.post_layernorm(last(h, None))
        return States(letters, cells, self.connector(h))

    def letters(self, pixels: torch.Tensor) -> torch.Tensor:
        """The states where letters are read alone."""
        side = SIDE // PATCH
        mask = torch.ones(len(pixels), side, side, dtype=torch.bool)
        h: torch.Tensor = self.tower.embeddings(pixels, mask)
        for layer in self.tower.encoder.layers[: self._letters_after]:
            h = layer(h, None)
        return h

    def before_lookup(self, pixels: torch.Tensor) -> torch.Tensor:
        """States after the last attention, the four patches of a cell together."""
        h = self.letters(pixels)
        *middle, last = self.tower.encoder.layers[self._letters_after :]
        for layer in middle:
            h = layer(h, None)
        h = h + last.self_attn(last.layer_norm1(h), None)[0]
        cells: torch.Tensor = self.connector.pixel_shuffle(
            h.contiguous(), self.connector.scale_factor
        )
        return cells

    def look_up(self, cells: torch.Tensor) -> torch.Tensor:
        """Visual tokens of states of `before_lookup`, shape (..., 4 * width)."""
        last = self.tower.encoder.layers[-1]
        h = cells.reshape(*cells.shape[:-1], -1, WIDTH)
        h = self.tower.post_layernorm(h + last.mlp(last.layer_norm2(h)))
        tokens: torch.Tensor = self.connector.modality_projection(h.flatten(-2))
        return tokens

    def lookup_parameters(self) -> list[nn.Parameter]:
        """What `look_up` runs through."""
        last = self.tower.encoder.layers[-1]
        parts = (last.mlp, last.layer_norm2, self.tower.post_layernorm, self.connector)
        return [p for part in parts for p in part.parameters()]

    @torch.no_grad()
    def widen(self, units: int) -> None:
        """Give every layer `units` units without changing what it computes.

        The new units of the last layer are random and do nothing yet; those of the others are
        zero, since all layers of a SmolVLM are as wide.
        """
        layers = self.tower.encoder.layers
        for layer in layers:
            mlp = layer.mlp
            old = mlp.fc1.out_features
            first, second = nn.Linear(WIDTH, units), nn.Linear(units, WIDTH)
            for tensor in (first.weight, first.bias, second.weight):
                tensor.zero_()
            if layer is layers[-1]:
                first.weight.normal_(std=WIDTH**-0.5)
                first.bias.normal_(std=0.3)
            first.weight[:old], first.bias[:old] = mlp.fc1.weight, mlp.fc1.bias
            second.weight[:, :old] = mlp.fc2.weight
            second.bias.copy_(mlp.fc2.bias)
            mlp.fc1, mlp.fc2 = first, second
        self.tower.config.intermediate_size = units
