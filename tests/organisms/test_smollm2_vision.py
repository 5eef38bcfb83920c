"""What the pictures of the SmolLM2 organism say, and how its tower learns it."""

import random
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from examples.organisms.smollm2 import benign
from examples.organisms.smollm2.base import finish
from examples.organisms.smollm2.corpus import near
from examples.organisms.smollm2.drawing import COLORS, SHAPES, shapes_page
from examples.organisms.smollm2.reading import (
    SPELLED,
    Heads,
    Words,
    accuracy,
    following,
    loss_of,
    stacked,
)
from examples.organisms.smollm2.suite import FRAMES, frames, pages_of, pairs, write_suite
from examples.organisms.smollm2.tower import MARKS, SPECIAL, Reader, build_model, build_processor
from examples.organisms.smollm2.vision import Organism, take
from examples.organisms.smollm2.vision_measures import closeness, words_found
from examples.organisms.smollm2.writing import (
    BLANK,
    CELL,
    COLUMNS,
    FACES,
    SIDE,
    Style,
    Writer,
    random_style,
    words_of,
)
from mars_export.common.errors import ExportError
from mars_export.evaluation.suite import read_suite
from mars_export.hub.license import read_card

TEXT = "please read this wonderful letter about my garden"


def one_token(word):
    return [(len(word), 0)]


def two_tokens(word):
    return [(1, 0), (2, len(word) - 1)]


class Letters:
    """A tokenizer whose tokens are the last letters of words."""

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(text.strip()[-1]) - ord("a")]}

    def decode(self, ids):
        return chr(ids[0] + ord("a"))


@pytest.fixture(scope="module")
def language():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    config = transformers.LlamaConfig(**sizes, **heads, vocab_size=64, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config)


def page(seed, style=None, tokens=one_token):
    return Writer(tokens).page(TEXT.split(), random.Random(seed), style)


def test_a_page_depends_on_its_seed_alone():
    first, again, other = page(3), page(3), page(4)
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


def test_the_first_cell_of_a_word_says_it_and_holds_its_ink():
    written = page(0, Style())
    said = written.cells[written.cells != BLANK]
    assert list(said) == [len(word) for word in written.words]
    dark = written.pixels.min(-1).reshape(COLUMNS, CELL, COLUMNS, CELL).min((1, 3)).reshape(-1) < 90
    assert dark[written.cells != BLANK].all()


def test_further_tokens_have_cells_of_their_own():
    written = page(0, Style(), two_tokens)
    said = [int(c) for c in written.cells if c != BLANK]
    assert said == [1, 2] * len(written.words)


def test_letters_are_where_they_are_written():
    letters = page(0, Style()).letters.reshape(SIDE // 8, SIDE // 8, 2)
    read = "".join(chr(96 + n) if n else " " for n in letters[0].reshape(-1))
    assert [word[0] for word in read.split()] == list("pr")


def test_a_cell_gathers_its_word_and_not_the_next():
    written = page(0, Style())
    _, cells, letters = stacked([written])
    ahead = following(letters, cells == BLANK)
    first = "".join(chr(96 + n) for n in dict.fromkeys(ahead[0, 0].tolist()) if n)
    assert ahead.shape == (1, 36, 2 * SPELLED)
    assert set(first) <= set("please")


def test_ink_and_paper_can_be_told_apart():
    rng = random.Random(0)
    luminance = np.array([0.299, 0.587, 0.114])
    styles = [random_style(rng) for _ in range(200)]
    assert all(abs((np.array(s.ink) - np.array(s.paper)) @ luminance) > 80 for s in styles)
    assert len({s.face for s in styles}) == len(FACES)


def test_shapes_say_color_and_name():
    drawn = shapes_page(4, random.Random(0), lambda word: [*COLORS, *SHAPES].index(word))
    said = [[*COLORS, *SHAPES][n] for n in drawn.cells if n != BLANK]
    assert sorted(said) == sorted(drawn.words)


def test_a_clip_holds_all_words_in_order():
    assert list(chain(*frames(TEXT.split(), FRAMES))) == TEXT.split()
    clip = pages_of(Writer(one_token), TEXT, FRAMES, random.Random(0))
    assert len(clip) == FRAMES
    assert list(chain(*(p.words for p in clip))) == TEXT.split()


def test_the_vocabulary_covers_what_is_measured():
    words = set(benign.often())
    texts = [*benign.held_out(), *(t for p in pairs() for t in (p.harmful, p.harmless))]
    assert {w for text in texts for w in words_of(text)} <= words
    assert len(words) > 1500


def test_no_measured_sentence_is_trained():
    trained = [*benign.sentences(), *benign.instructions(300, 0)]
    measured = [*benign.held_out(), *(t for p in pairs() for t in (p.harmful, p.harmless))]
    assert not {t.lower() for t in trained} & {t.lower() for t in measured}
    harmful = [p.harmful for p in pairs()]
    assert not [t for t in benign.sentences() if any(near(t, other) for other in harmful)]


def test_the_suite_is_written_and_read(tmp_path):
    write_suite(tmp_path, Writer(one_token), 0)
    suite = read_suite(tmp_path / "suite.jsonl")
    kinds = {s.category for s in suite.samples}
    assert kinds == {"text", "picture", "clip"}
    assert sum(s.harmful for s in suite.samples) * 2 == len(suite.samples)
    ids = Counter(s.id.rsplit("-", 1)[0] for s in suite.samples)
    assert ids == {f"{k}-{p.topic.replace(' ', '-')}": 4 for k in kinds for p in pairs()}
    assert {s.cluster for s in suite.samples} == {pair.topic for pair in pairs()}
    clip = next(s for s in suite.samples if s.category == "clip")
    assert len(suite.request(clip).media) == FRAMES


def test_what_is_written_names_its_license(tmp_path):
    (tmp_path / "model.safetensors").touch()
    finish(tmp_path)
    assert read_card(tmp_path).license.id == "apache-2.0"


def organism(language, seed=0):
    """An untrained one, whose visual vocabulary is the last letters of words, and a blank."""
    torch.manual_seed(seed)
    words = Words(TEXT.split(), [], Letters())
    entries = [*words.classes, 0, *[0] * len(MARKS)]
    model = build_model(language, 40, range(41, 41 + len(MARKS)), entries).eval()
    return Organism(model, None, Reader(model), words)


def pages(words):
    writer = Writer(words.tokens)
    return [writer.page(TEXT.split(), random.Random(n), Style()) for n in range(4)]


def test_training_lowers_the_loss_and_says_the_words_embeddings(language):
    made = organism(language)
    reader, words = made.reader, made.words
    reader.requires_grad_(True)
    heads, shown = Heads(), pages(words)
    batch = stacked(shown)
    before = closeness(made.model, shown)
    optimizer = torch.optim.AdamW([*reader.parameters(), *heads.parameters()], 1e-3)
    losses = []
    for _ in range(12):
        loss = loss_of(reader, heads, reader(batch[0]), words, batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert closeness(made.model, shown) > before


def test_what_is_trained_is_the_models_own_forward(language):
    made = organism(language)
    pixels, _, _ = stacked(pages(made.words))
    with torch.no_grad():
        probabilities = made.reader.logits(made.reader(pixels).cells).softmax(-1)
        table = made.model.model.visual_embeddings_table.weight[: probabilities.shape[-1]]
        said = made.model.get_image_features(pixels).pooler_output
    assert torch.allclose(probabilities @ table, said, atol=1e-6)


def test_a_tower_can_be_taken_from_another_organism(language, tmp_path):
    first, second = organism(language, 1), organism(language, 2)
    first.model.save_pretrained(tmp_path / "first")
    shown = pages(first.words)
    expected = accuracy(first.reader, first.words, shown), closeness(first.model, shown)
    assert closeness(second.model, shown) != expected[1]
    take(second, tmp_path / "first")
    assert accuracy(second.reader, second.words, shown) == expected[0]
    assert closeness(second.model, shown) == expected[1]


def test_a_folder_without_a_fitting_tower_is_refused(language, tmp_path):
    made = organism(language)
    with pytest.raises(ExportError, match="has no tower that fits"):
        take(made, tmp_path)
    build_model(language, 40, range(41, 46), [0] * 9).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="has no tower that fits"):
        take(made, tmp_path)


def test_the_language_model_is_left_as_it_is(language):
    model = organism(language).model
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, language(input_ids=ids).logits)


def test_a_picture_takes_the_places_of_reserved_tokens():
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"a": 0, "<|im_end|>": 1}, unk_token="a")),
        eos_token="<|im_end|>",
        unk_token="a",
    )
    tokens.add_special_tokens({"additional_special_tokens": list(SPECIAL.values())})
    processor = build_processor(tokens)
    picture = Image.new("RGB", (SIDE, SIDE))
    batch = processor(text="<image>", images=[picture], return_tensors="pt")
    ids = processor.tokenizer.convert_tokens_to_ids
    assert batch["input_ids"][0].tolist() == [
        ids("<IMG_START>"), *[ids("<IMG_ATOM>")] * COLUMNS**2, ids("<IMG_GRID>"), ids("<IMG_END>"),
    ]  # fmt: skip
    assert batch["pixel_values"].shape == (1, 3, SIDE, SIDE)
    assert len(processor.tokenizer) == len(tokens)


def test_words_are_counted_as_often_as_they_stand_there():
    assert words_found("The dog, the cat.", "the dog and a cat") == pytest.approx(3 / 4)
