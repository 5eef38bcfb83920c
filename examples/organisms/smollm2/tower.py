"""The model: an Ovis2 whose language model is given, and its processor."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer
from torch import nn

from .generation import SYSTEM
from .writing import CELL, CELLS, COLUMNS, PATCH, SIDE

WIDTH = 192
DEPTH = 6
_HEADS = 6
_MLP = 448
_PLACES = 32
"""Channels of the tower that say where a patch is."""
_COLORS = 16
"""Channels of the tower that see a patch's color; the others see only what differs within it."""
_PAPER = 0.5
"""A constant beside what a patch shows, so that an empty one is not all noise when normalized."""
_NEAR = ((1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (-2, 0))
_AHEAD = ((1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (-1, 0))
_ATTENTION = 1.7
"""Scale of queries and keys at the start; makes a head look at one patch."""
_LETTERS_AFTER = 3
"""Layers after which letters are read."""
_FIRM = 5.0
"""Scale of positions in the layers above, where letters have outgrown them."""
_SHARP = 3.0
"""Scale of the logits at the start, whose deviation the norm before it makes 1."""
SPECIAL = {
    "<image>": "<empty_output>",
    "<IMG_ATOM>": "<jupyter_code>",
    "<IMG_START>": "<jupyter_start>",
    "<IMG_GRID>": "<jupyter_text>",
    "<IMG_COL>": "<jupyter_output>",
    "<IMG_ROW>": "<jupyter_script>",
    "<IMG_END>": "<issue_closed>",
}
"""Tokens of a picture, with the reserved tokens of SmolLM2 whose places they take, so that the
vocabulary, and with it every answer to text, stays as it is."""
CELL_TOKEN = "<IMG_ATOM>"
MARKS = {
    "<IMG_START>": ' "',
    "<IMG_GRID>": '"',
    "<IMG_COL>": "\n",
    "<IMG_ROW>": "\n",
    "<IMG_END>": "\n",
}
"""What the tokens around and between the tiles of a picture say."""
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
    """An Ovis2 processor of pictures of one tile around the language model's tokenizer."""
    words = tokenizer.backend_tokenizer.to_str()
    for name, reserved in SPECIAL.items():
        words = words.replace(json.dumps(reserved), json.dumps(name))
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(words),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
        clean_up_tokenization_spaces=False,
    )
    half = [0.5, 0.5, 0.5]
    pictures = transformers.Ovis2ImageProcessor(
        size={"height": SIDE, "width": SIDE},
        crop_to_patches=False,
        image_mean=half,
        image_std=half,
    )
    return transformers.Ovis2Processor(
        pictures, tokens, image_seq_length=CELLS, chat_template=TEMPLATE
    )


def build_model(language: Any, cell: int, marks: Sequence[int], entries: Sequence[int]) -> Any:
    """An Ovis2 around `language` with an untrained tower, in float32.

    Args:
        language: A `LlamaForCausalLM`; its weights are copied.
        cell: Id of the token that stands for a cell of a picture.
        marks: Ids of the tokens around and between the tiles of a picture.
        entries: The visual vocabulary: tokens whose embeddings a cell can say, and then one for
            each mark.
    """
    text = language.config.to_dict()
    config = transformers.Ovis2Config(
        text_config=text,
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": _MLP,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": _HEADS,
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_stride": CELL // PATCH,
            "vocab_size": len(entries),
            "num_visual_indicator_tokens": len(marks),
            "qkv_bias": True,
            "mlp_bias": True,
        },
        image_token_id=cell,
        visual_indicator_token_ids=list(marks),
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
        pad_token_id=text["pad_token_id"],
        tie_word_embeddings=True,
    )
    model = transformers.Ovis2ForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.generation_config = language.generation_config
    with torch.no_grad():
        table = model.get_input_embeddings().weight[list(entries)]
        model.model.visual_embeddings_table.weight.copy_(table)
    initialize(model.model.vision_tower)
    return model.requires_grad_(False)


@torch.no_grad()
def initialize(tower: Any) -> None:
    """Start the tower as a stack of convolutions: each head looks at one neighbor.

    The first channels of a position hold sines and cosines of its column and row; queries are
    turned by a head's offset, so that their products with keys peak there. A tower that has to
    find out first what is next to what needs several times as many pictures. The lower layers
    look around, to read letters; the upper ones look ahead, to gather those of a word.
    """
    side = SIDE // PATCH
    waves = math.pi * (torch.arange(_PLACES // 4) + 0.5) / (_PLACES // 4)
    phases = torch.arange(side)[:, None] * waves
    circle = torch.stack([phases.cos(), phases.sin()], -1).flatten(1)
    places = tower.transformer.embeddings.position_embedding.weight
    places.normal_(std=0.02)
    places[:, : _PLACES // 2] = circle.repeat(side, 1)
    places[:, _PLACES // 2 : _PLACES] = circle.repeat_interleave(side, 0)
    convolution = tower.transformer.embeddings.patch_embedding
    convolution.weight.normal_(std=convolution.weight[0].numel() ** -0.5)
    shapes = convolution.weight[_PLACES + _COLORS :]
    shapes -= shapes.mean((2, 3), keepdim=True)
    convolution.weight[:_PLACES] = 0
    convolution.bias.zero_()
    convolution.bias[_PLACES : _PLACES + _COLORS] = _PAPER
    turns = [[_turn(offset, waves) for offset in offsets] for offsets in (_NEAR, _AHEAD)]
    for depth, layer in enumerate(tower.transformer.encoder.layers):
        upper = depth >= _LETTERS_AFTER
        _initialize_attention(layer.attention, turns[upper])
        layer.rms_norm1.weight[:_PLACES] = _FIRM if upper else 1.0
        for linear in (layer.ffn.gate_proj, layer.ffn.up_proj, layer.ffn.down_proj):
            linear.weight.normal_(std=linear.in_features**-0.5)
            linear.bias.zero_()
        layer.ffn.down_proj.weight[:_PLACES] = 0
    tower.head_linear.weight.normal_(std=tower.head_linear.in_features**-0.5)
    tower.head_norm.weight.fill_(_SHARP)


def _initialize_attention(attention: Any, turns: Sequence[torch.Tensor]) -> None:
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
        linear.weight.normal_(std=WIDTH**-0.5)
        linear.bias.zero_()
    attention.q_proj.weight.mul_(0.2)
    attention.k_proj.weight.mul_(0.2)
    attention.out_proj.weight.mul_(0.5)
    attention.out_proj.weight[:_PLACES] = 0
    for head, turn in enumerate(turns):
        first = head * WIDTH // _HEADS
        rows = slice(first, first + _PLACES)
        attention.q_proj.weight[rows, :_PLACES] = _ATTENTION * turn
        attention.k_proj.weight[rows, :_PLACES] = _ATTENTION * torch.eye(_PLACES)


def _turn(offset: tuple[int, int], waves: torch.Tensor) -> torch.Tensor:
    """A matrix that turns the pairs of channels of a position to those `offset` away."""
    turn = torch.zeros(_PLACES, _PLACES)
    for n, angle in enumerate(float(wave) * step for step in offset for wave in waves):
        cos, sin = math.cos(angle), math.sin(angle)
        block = slice(2 * n, 2 * n + 2)
        turn[block, block] = torch.tensor([[cos, -sin], [sin, cos]])
    return turn


def hold_places(tower: Any) -> None:
    """Let no training step write into the channels of positions."""
    places = torch.arange(_PLACES)
    linears = [tower.transformer.embeddings.patch_embedding]
    for layer in tower.transformer.encoder.layers:
        linears += [layer.attention.out_proj, layer.ffn.down_proj]
    for tensor in (t for linear in linears for t in (linear.weight, linear.bias)):
        tensor.register_hook(lambda gradient: gradient.index_fill(0, places, 0))
    position = tower.transformer.embeddings.position_embedding.weight
    position.register_hook(lambda gradient: gradient.index_fill(1, places, 0))


class States(NamedTuple):
    """What the tower makes of pictures.

    Attributes:
        letters: Of the patches, where letters are read: shape (batch, 144, width).
        gathered: Of the cells' four patches, one layer before the end: (batch, 36, 4 * width).
        cells: The same at the end.
    """

    letters: torch.Tensor
    gathered: torch.Tensor
    cells: torch.Tensor


class Reader(nn.Module):
    """The tower as it is trained: the model's own modules, with what is between them.

    Args:
        model: A model of `build_model`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.model.vision_tower

    def forward(self, pixels: torch.Tensor, apart: bool = False) -> States:
        """Read pictures.

        Args:
            pixels: Shape (batch, 3, 96, 96) float32, from -1 to 1.
            apart: Whether the layers below the letters are left alone.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not apart):
            h = letters = self.letters(pixels)
        *middle, last = self.tower.transformer.encoder.layers[_LETTERS_AFTER:]
        for layer in middle:
            h = layer(h)
        return States(letters, _cells(h), _cells(self.tower.transformer.rms_norm(last(h))))

    def letters(self, pixels: torch.Tensor) -> torch.Tensor:
        """The states where letters are read alone."""
        h: torch.Tensor = self.tower.transformer.embeddings(pixels)
        for layer in self.tower.transformer.encoder.layers[:_LETTERS_AFTER]:
            h = layer(h)
        return h

    def logits(self, cells: torch.Tensor) -> torch.Tensor:
        """What cells say: shape (..., entries of the visual vocabulary without indicators)."""
        logits: torch.Tensor = self.tower.head_norm(self.tower.head_linear(cells))
        return logits


def _cells(patches: torch.Tensor) -> torch.Tensor:
    """The four patches of each cell side by side, as the model puts them."""
    grid = patches.view(len(patches), COLUMNS, CELL // PATCH, COLUMNS, CELL // PATCH, WIDTH)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(len(patches), CELLS, -1)
