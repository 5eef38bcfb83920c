"""Ovis2: its template writes another token than the placeholder, and any text model fits in."""

import pytest
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.testing import assert_close
from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil

from mars_export.calibration.activations import Reader, Shown
from mars_export.inputs.requests import Media, Request, collate
from mars_export.inputs.template import turn_tokens
from support import zoo
from support.behavior import Pair
from support.conversations import places
from support.oracle import oracle_greedy, oracle_logits
from support.tiny import HEADER, HEADERS, IMAGE, TURN_STARTS, VISION_END, VISION_START, VOCABULARY
from support.zoo import COLUMN, GRID, ROW

pytestmark = pytest.mark.skipif(
    bool(zoo.family("ovis2").lacking), reason=zoo.family("ovis2").lacking or ""
)

SPECIAL = {
    "<IMG_ATOM>": IMAGE, "<IMG_START>": VISION_START, "<IMG_GRID>": GRID, "<IMG_COL>": COLUMN,
    "<IMG_ROW>": ROW, "<IMG_END>": VISION_END, "<image>": 307, "<|im_start|>": HEADER[0],
    "\n": HEADER[2], "<|im_end|>": 316,
}  # fmt: skip
WORDS = {"<pad>": 0, "<unk>": 3, "assistant": HEADER[1], "user": TURN_STARTS[0][1]}
TEMPLATE = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}\
{{ '<image>\n' if part['type'] == 'image' else part['text'] }}\
{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
PLACE = [IMAGE] * 4


def processor():
    """A real processor, whose tokens have the ids of the tiny checkpoint."""
    names = {index: word for word, index in {**SPECIAL, **WORDS}.items()}
    vocabulary = {names.get(index, f"w{index}"): index for index in range(VOCABULARY)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(list(SPECIAL))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>"
    )
    tiles = Ovis2ImageProcessorPil(size={"height": 28, "width": 28}, crop_to_patches=True)
    return transformers.Ovis2Processor(
        tiles, tokenizer, chat_template=TEMPLATE, image_seq_length=len(PLACE)
    )


def picture(side):
    return Media("image", Image.effect_noise((side, side), 90).convert("RGB"))


def test_placeholders_are_what_the_processor_writes_for_the_template_s_token(pairs):
    """One picture is a single tile; the other four, and the whole of it before them."""
    pair, made = pairs("ovis2"), processor()
    headers, starts = turn_tokens(made)
    assert [header.model_dump() for header in headers] == HEADERS
    assert [*TURN_STARTS[0], SPECIAL["\n"]] in starts
    requests = [Request("w20", (picture(28),)), Request("w21 w22", (picture(56),))]
    reader = Reader(pair.base, made, headers, [5], shown=Shown(("text", "image"), {"image": IMAGE}))
    assert reader.read(requests).context.tolist() == [[1, 4, 0], [1, 20, 0]]
    batch = collate(made, requests)
    first, second = batch["input_ids"].tolist()
    assert VISION_START in first
    marked = [VISION_START, *PLACE, GRID, *PLACE, COLUMN, *PLACE, ROW, *PLACE, COLUMN, *PLACE]
    start = second.index(VISION_START)
    assert second[start : start + len(marked) + 1] == [*marked, VISION_END]
    assert [row.count(IMAGE) for row in (first, second)] == [4, 20]
    assert not {made.image_token_id} & {*first, *second}
    assert batch["pixel_values"].shape == (6, 3, 28, 28)
    where = places(batch["input_ids"], [[len(first) - 1]] * 2)
    assert [shown.visual for _, _, shown in where] == [4, 20]
    arguments = (pair.base, pair.record, pair.direction, batch, where)
    assert_close(pair.model(**batch).logits, oracle_logits(*arguments), rtol=1e-5, atol=1e-5)
    got = pair.model.generate(**batch, max_new_tokens=5, do_sample=False)
    assert got.equal(oracle_greedy(*arguments, 5))
    assert [row[0].modality for row in pair.model.steering.last] == ["image", "image"]


@pytest.mark.parametrize(("text", "decoder"), [("llama", "LlamaModel"), ("qwen2", "Qwen2Model")])
def test_any_text_model_is_steered_inside(tmp_path, monkeypatch, text, decoder):
    monkeypatch.setitem(zoo._SPECS["ovis2"][1]["text_config"], "model_type", text)
    pair = Pair.make("ovis2", tmp_path)
    for model in (pair.base, pair.model):
        assert type(model.get_decoder()).__name__ == decoder
    batch = pair.batch(None, "image")
    where = pair.ends(batch, None, "image")
    want = oracle_logits(pair.base, pair.record, pair.direction, batch, where)
    assert_close(pair.model(**batch).logits, want, rtol=1e-5, atol=1e-5)
    assert (want - pair.base(**batch).logits)[:, -1].abs().amax(-1).min() > 0.01
