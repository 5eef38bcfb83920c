"""The graphs of tiny random checkpoints do what PyTorch does, and spoil what contradicts itself."""

import copy
import shutil

import numpy as np
import pytest
import torch

from mars_export.integrations.onnx.decoder import Decoder
from mars_export.integrations.onnx.int8 import quantize
from mars_export.integrations.onnx.parity import Case, compare
from mars_export.integrations.onnx.routes import route_of
from mars_export.integrations.onnx.runner import Conversation, SteeredOnnx
from support.onnx_graphs import arrays, places
from support.tiny import HEADER, IMAGE, TURN_STARTS, VIDEO, random_ids

USE = "ONNX, onnxruntime"
CLOSE = 2e-5
NO_TOKEN = 10**6


@pytest.fixture
def made(tiny_graphs, family):
    return tiny_graphs(family)


@pytest.fixture
def pair(made):
    return made[0]


@pytest.fixture
def graphs(made):
    return made[1]


def close(got, want):
    np.testing.assert_allclose(got, want.numpy(), rtol=CLOSE, atol=CLOSE)


def whole(pair, ids):
    """PyTorch's logits of the last column, and what it steered."""
    out = pair.model(**pair.whole(torch.tensor([ids]))).logits[:, -1]
    return out, pair.model.steering.last


def fed(graphs, pieces):
    """The last step of a text fed in pieces, and all (row, column) that were steered."""
    none = np.zeros((1, 0), np.int64)
    cache = {i.name: graphs._empty(i, 1) for i in graphs._past}
    conversation = Conversation(none, none, np.zeros(1, np.int64), cache)
    steered, start = [], 0
    for piece in pieces:
        step = graphs.forward(conversation, np.array([piece]))
        assert step.answering.tolist() == [bool(steered or step.steered.any())]
        assert np.isnan(step.logits).all() != step.answering[0]
        steered += [start + column for _, column in places(step)]
        start += len(piece)
    return step, steered


@pytest.mark.use(USE)
def test_logits_tokens_and_steering_of_every_modality(pair, graphs):
    cases = []
    for visual in pair.visuals():
        rows = (None, visual) if visual else (None,)
        cases.append(Case(visual or "text", [str(row) for row in rows], pair.batch(*rows)))
    assert {IMAGE, VIDEO} >= set(graphs.about["placeholders"].values())
    for found in compare(pair.model, graphs, cases):
        assert found.tokens == 64
        assert found.logits < CLOSE
        assert found.effect > 0.01


@pytest.mark.use(USE)
def test_a_header_that_is_cut_between_two_calls_is_steered(pair, graphs):
    ids = [1, *random_ids(6, 1), *HEADER, *random_ids(4, 2), *HEADER]
    want, last = whole(pair, ids)
    assert [s.position for s in last[0]] == [9, 16]
    for cut in range(1, len(ids)):
        step, steered = fed(graphs, [ids[:cut], ids[cut:]])
        assert steered == [9, 16]
        close(step.logits, want)


@pytest.mark.use(USE)
def test_token_by_token_is_as_in_one_piece(pair, graphs):
    ids = [1, *random_ids(6, 1), *HEADER]
    step, steered = fed(graphs, [[token] for token in ids])
    assert steered == [9]
    close(step.logits, whole(pair, ids)[0])


@pytest.mark.use(USE)
def test_a_second_turn_on_the_cache(pair, graphs):
    first = [1, *random_ids(5, 1), *HEADER]
    conversation, step = graphs.begin({"input_ids": np.array([first])})
    answer = []
    for _ in range(3):
        answer.append(int(step.logits.argmax()))
        step = graphs.forward(conversation, np.array([answer[-1:]]))
        assert not step.steered.any()
    more = [*random_ids(4, 3), *HEADER]
    step = graphs.forward(conversation, np.array([more]))
    assert places(step) == [(0, 6)]
    want, last = whole(pair, [*first, *answer, *more])
    assert len(last[0]) == 2
    close(step.logits, want)


@pytest.mark.use(USE)
@pytest.mark.parametrize("tail", [[], [*TURN_STARTS[0], 9]], ids=["begun", "forgotten"])
def test_an_answer_that_is_begun_goes_on_and_a_forgotten_header_is_no_answer(pair, graphs, tail):
    ids = [1, *random_ids(7, 4), *HEADER, 20, 21, *tail]
    batch = pair.whole(torch.tensor([ids]))
    if tail:
        with pytest.raises(ValueError, match="row 0 does not end in an assistant turn"):
            graphs.begin(arrays(batch))
        return
    out = pair.model.generate(**batch, max_new_tokens=6, do_sample=False, eos_token_id=NO_TOKEN)
    conversation, step = graphs.begin(arrays(batch))
    assert places(step) == [(0, 10)]
    assert graphs.generate(arrays(batch), 6, stop=[]) == out[:, len(ids) :].tolist()
    assert conversation.ids.shape == (1, len(ids))


@pytest.mark.use(USE)
def test_a_prompt_without_a_header_is_no_answer(graphs):
    ids = [[0, 0, 0, 1, *random_ids(3)], [1, *random_ids(3), *HEADER]]
    with pytest.raises(ValueError, match="row 0 does not end in an assistant turn"):
        graphs.begin({"input_ids": np.array(ids), "attention_mask": np.array(ids) > 0})


@pytest.mark.use(USE)
def test_an_answer_ends_where_the_model_begins_another_turn(graphs, pair, monkeypatch):
    batch = arrays(pair.batch(None, None))
    free = graphs.generate(batch, 6, stop=[])
    forward, tokens = graphs.forward, iter([None, TURN_STARTS[0][0], TURN_STARTS[0][1]])

    def scripted(*args, **options):
        step = forward(*args, **options)
        if token := next(tokens, None):
            step.logits[0] = np.arange(step.logits.shape[1]) == token
        return step

    monkeypatch.setattr(graphs, "forward", scripted)
    begun, other = graphs.generate(batch, 6, stop=[])
    assert begun == [free[0][0], *TURN_STARTS[0]]
    assert other == free[1]


@pytest.mark.use(USE)
def test_answers_end_with_their_stop_token_and_may_differ_in_length(graphs, pair):
    batch = arrays(pair.batch(None, None))
    free = graphs.generate(batch, 8, stop=[])
    stop = free[0][2]
    short, other = graphs.generate(batch, 8, stop=[stop])
    assert short == free[0][: free[0].index(stop) + 1]
    assert other == free[1][: free[1].index(stop) + 1 if stop in free[1] else 8]


@pytest.mark.use(USE)
def test_what_the_model_writes_behind_an_answer_is_not_fed(graphs, pair, monkeypatch):
    """It could be a placeholder that the graph refuses, for which the whole batch would end."""
    batch = arrays(pair.batch(None, None))
    free = graphs.generate(batch, 6, stop=[])
    stop, behind = [token for token in range(20, 300) if token not in free[1]][:2]
    forward, tokens, fed = graphs.forward, iter([stop, *[behind] * 5]), []

    def scripted(conversation, ids, *args, **options):
        fed.append(int(ids[0, -1]))
        step = forward(conversation, ids, *args, **options)
        step.logits[0] = np.arange(step.logits.shape[1]) == next(tokens)
        return step

    monkeypatch.setattr(graphs, "forward", scripted)
    assert graphs.generate(batch, 6, stop=[stop]) == [[stop], free[1]]
    assert fed[1:] == [stop] * 5


@pytest.mark.use(USE)
def test_the_shift_is_that_of_what_the_row_has_shown(graphs, pair):
    rows = pair.visuals()
    _, step = graphs.begin(arrays(pair.batch(*rows)))
    assert step.modality[:, -1].tolist() == list(range(len(rows)))


def test_the_tokens_of_turns_are_told_apart_by_their_embeddings(pair):
    """But for those that have the same one, as tokens have that no training saw."""
    model = copy.deepcopy(pair.model)
    embed = model.get_input_embeddings()
    embed.weight[20] = embed.weight[HEADER[0]]
    embed.weight[HEADER[1]] = embed.weight[HEADER[2]]
    decoder = Decoder(model, route_of(pair.family))
    shown = torch.tensor([[1, *HEADER, 5, 20]] * 2)
    for column, token, agree in (
        (0, 1, True), (0, HEADER[0], False), (3, 7, False), (4, HEADER[2], False), (1, 20, True),
        (1, 7, True), (5, HEADER[0], True), (5, HEADER[1], False), (2, HEADER[2], True),
    ):  # fmt: skip
        ids = shown.clone()
        ids[1, column] = token
        assert decoder._embedded(ids, embed(shown)).tolist() == [True, agree], (column, token)
    assert not decoder._embedded(shown, embed(shown) + 1e-6).any()


def _header_hidden(feed):
    feed["input_ids"] = np.where(feed["input_ids"] == HEADER[-1], 9, feed["input_ids"])


def _header_invented(feed):
    feed["input_ids"][0, 2:5] = HEADER


def _new_tokens_only(feed):
    for name in ("input_ids", "attention_mask"):
        feed[name] = feed[name][:, -3:]


def _one_row_for_all(feed):
    feed["input_ids"] = feed["input_ids"][:1]


def _too_long(feed):
    feed["input_ids"] = np.pad(feed["input_ids"], ((0, 0), (0, 1)))
    feed["attention_mask"] = np.pad(feed["attention_mask"], ((0, 0), (0, 1)), constant_values=1)


def _padded_on_the_right(feed):
    feed["attention_mask"][:, -1] = 0


def _nothing_seen(feed):
    feed["attention_mask"][:] = 0


def _another_turn(feed):
    feed["input_ids"][:, 1:3] = TURN_STARTS[0]


def _cache_of_a_spoilt_row(feed):
    for name in feed:
        if name.startswith("past_key_values."):
            rows, heads, _, size = feed[name].shape
            feed[name] = np.zeros((rows, heads, 1, size), np.float32)
    feed["past_key_values.0.key"][:] = np.nan
    for name in ("input_ids", "attention_mask"):
        feed[name] = np.pad(feed[name], ((0, 0), (1, 0)), constant_values=1)


WRONG = [
    _header_hidden, _header_invented, _new_tokens_only, _one_row_for_all, _too_long,
    _padded_on_the_right, _nothing_seen, _another_turn, _cache_of_a_spoilt_row,
]  # fmt: skip


@pytest.mark.use(USE)
@pytest.mark.parametrize("spoil", WRONG, ids=lambda f: f.__name__.strip("_"))
def test_inputs_that_contradict_each_other_never_give_an_answer(graphs, pair, spoil):
    """NaN in the logits of every row that is concerned, or an error; never an unsteered answer."""
    feed = prompt_feed(graphs, pair)
    whole = run(graphs, feed)
    assert np.isfinite(whole["logits"]).all()
    spoil(feed)
    try:
        told = run(graphs, feed)
    except Exception:  # onnxruntime's own classes have no common base
        return
    assert np.isnan(told["logits"][0]).all()
    if told["answering"][0]:
        assert np.isnan(told["present.0.key"][0]).all()


@pytest.mark.use(USE)
def test_a_row_that_is_spoilt_stays_so_and_leaves_the_others_as_they_are(graphs, pair, tmp_path):
    """In int8 too, where rows share the scales of what is computed."""
    folder = shutil.copytree(graphs.folder, tmp_path / "int8")
    quantize(graphs.folder / "decoder.onnx", folder / "decoder.onnx")
    for these in (graphs, SteeredOnnx(folder)):
        feed = prompt_feed(these, pair)
        want = run(these, feed)
        for spoilt, sound in ((0, 1), (1, 0)):
            ids = feed["input_ids"].copy()
            ids[spoilt, -5] = HEADER[0]  # its embedding is not there; nothing else is computed
            told = run(these, feed | {"input_ids": ids})
            assert np.isnan(told["logits"][spoilt]).all()
            np.testing.assert_array_equal(told["logits"][sound], want["logits"][sound])
            later = next_step(these, feed, told)
            assert np.isnan(later["logits"][spoilt]).all()
            assert np.isfinite(later["logits"][sound]).all()
            again = next_step(these, later["fed"], later)
            assert np.isnan(again["logits"][spoilt]).all()


def next_step(graphs, feed, told):
    """A generated token behind it."""
    ids = np.pad(feed["input_ids"], ((0, 0), (0, 1)), constant_values=9)
    cache = {name: told[name.replace("past_key_values", "present")] for name in feed if "." in name}
    fed = {
        **feed,
        "input_ids": ids,
        "attention_mask": np.pad(feed["attention_mask"], ((0, 0), (0, 1)), constant_values=1),
        **graphs.embed(ids[:, -1:]),
        **cache,
    }
    if "position_ids" in feed:
        fed["position_ids"] = np.full((3, len(ids), 1), ids.shape[1] - 1)
    return run(graphs, fed) | {"fed": fed}


def prompt_feed(graphs, pair):
    """What the decoder graph takes for two text prompts."""
    batch = arrays(pair.batch(None, None))
    ids = batch["input_ids"]
    feed = {
        "input_ids": ids.copy(),
        "attention_mask": batch["attention_mask"].copy(),
        **graphs.embed(ids),
        **{i.name: graphs._empty(i, 2) for i in graphs._past},
    }
    if graphs.about["rotary_axes"] == 3:
        feed["position_ids"] = np.broadcast_to(np.arange(ids.shape[1]), (3, *ids.shape)).copy()
    return feed


def run(graphs, feed):
    decoder = graphs.graphs["decoder"]
    names = [output.name for output in decoder.get_outputs()]
    return dict(zip(names, decoder.run(None, feed), strict=True))


@pytest.mark.use(USE)
def test_every_input_must_be_given(graphs, pair):
    feed = prompt_feed(graphs, pair)
    for name in feed:
        less = {key: value for key, value in feed.items() if key != name}
        with pytest.raises(Exception, match=r"(?i)missing|required"):
            graphs.graphs["decoder"].run(None, less)


@pytest.mark.use(USE)
def test_missing_pictures_are_no_answer(graphs, pair):
    batch = arrays(pair.batch("image"))
    for name in [name for name in batch if name.startswith("pixel_values")]:
        del batch[name]
    with pytest.raises(ValueError, match="placeholders and features"):
        graphs.begin(batch)


@pytest.mark.use(USE)
def test_a_picture_of_a_later_turn_wants_features(graphs, pair):
    conversation, _ = graphs.begin(arrays(pair.batch(None)))
    turn = np.array([[302, IMAGE, 303, *HEADER]])
    before = conversation.ids.copy()
    with pytest.raises(ValueError, match="placeholders and features"):
        graphs.forward(conversation, turn)
    assert conversation.ids.tolist() == before.tolist()


@pytest.mark.use(USE)
@pytest.mark.parametrize("name", ["pixel_values_of_something", "image_embeds", "input_features"])
def test_what_the_graphs_would_leave_out_is_refused(graphs, pair, name):
    with pytest.raises(ValueError, match=f"do not take {name}"):
        graphs.begin(arrays(pair.batch(None)) | {name: np.zeros(3, np.float32)})


@pytest.mark.use(USE)
@pytest.mark.parametrize("ids", [[], [[]], [1, 2]])
def test_tokens_come_in_rows(graphs, ids):
    with pytest.raises(ValueError, match="rows of at least one token"):
        graphs.begin({"input_ids": np.array(ids)})


@pytest.mark.use(USE)
def test_no_token_cannot_be_generated(graphs, pair):
    with pytest.raises(ValueError, match="at least 1"):
        graphs.generate(arrays(pair.batch(None)), 0)


@pytest.mark.use(USE)
def test_too_few_features_spoil_everything(graphs, pair):
    batch = arrays(pair.batch("image"))
    rows, deep = graphs.features(batch, "image")
    less = None if deep is None else deep[:, 1:]
    found = graphs.embed(batch["input_ids"], {"image": (rows[1:], less)})
    assert np.isnan(found["inputs_embeds"]).all()


@pytest.mark.use(USE)
def test_a_placeholder_that_the_model_writes_is_a_token_like_others(graphs, pair):
    ids = torch.tensor([[IMAGE]])
    close(graphs.embed(ids.numpy())["inputs_embeds"], pair.model.get_input_embeddings()(ids))


@pytest.mark.use(USE)
def test_prompts_are_padded_on_the_left(graphs, pair):
    batch = arrays(pair.batch(None))
    batch["attention_mask"][:, -1] = 0
    with pytest.raises(ValueError, match="on the left"):
        graphs.begin(batch)


@pytest.mark.use(USE, family="qwen3_vl")
@pytest.mark.parametrize("sizes", [[(1, 4, 6), (1, 8, 2)], [(3, 4, 4)], [(1, 2, 2), (2, 6, 4)]])
def test_pictures_and_clips_of_any_size_share_a_batch(tiny_graphs, sizes):
    """Qwen3-VL: positions, DeepStack and features follow each grid."""
    pair, graphs = tiny_graphs("qwen3_vl")
    batch = grid_batch(sizes)
    want = pair.model(**batch).logits[:, -1]
    conversation, step = graphs.begin(arrays(batch))
    close(step.logits, want)
    assert step.gate[:, -1].tolist() == pytest.approx(
        [row[0].gate for row in pair.model.steering.last], abs=1e-4
    )
    tokens = pair.model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=NO_TOKEN)
    assert graphs.generate(arrays(batch), 4, stop=[]) == tokens[:, -4:].tolist()
    assert conversation.offset.shape == (len(sizes),)


@pytest.mark.use(USE, family="qwen3_vl")
def test_placeholders_in_more_runs_than_grids_are_refused(tiny_graphs):
    """As many as there are features, but torn apart."""
    _, graphs = tiny_graphs("qwen3_vl")
    batch = arrays(grid_batch([(1, 4, 4)]))
    line = batch["input_ids"][0].tolist()
    torn = line.index(IMAGE) + 2
    batch["input_ids"] = np.array([[*line[:torn], 304, *line[torn:]]])
    batch["attention_mask"] = np.ones_like(batch["input_ids"])
    with pytest.raises(ValueError, match="placeholders for a grid"):
        graphs.begin(batch)


def grid_batch(sizes):
    """One row for each grid: a picture of one frame, a clip of more."""
    rows, pixels = [], {"image": [], "video": []}
    for number, (t, h, w) in enumerate(sizes):
        visual, token = ("image", IMAGE) if t == 1 else ("video", VIDEO)
        frame = [303, *[token] * (h * w // 4), 304]
        rows.append([1, *frame * t, *random_ids(3 + number, number), *HEADER])
        pixels[visual].append((t, h, w))
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    batch = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "mm_token_type_ids": (ids == IMAGE).int() + 2 * (ids == VIDEO).int(),
    }
    names = {"image": ("pixel_values", "image_grid_thw")}
    names["video"] = ("pixel_values_videos", "video_grid_thw")
    draw = torch.Generator().manual_seed(1)
    for visual, grids in pixels.items():
        if grids:
            count = sum(t * h * w for t, h, w in grids)
            value, grid = names[visual]
            batch |= {value: torch.randn(count, 1176, generator=draw), grid: torch.tensor(grids)}
    return batch


@pytest.mark.use(USE, family="gemma3")
def test_several_pictures_in_one_gemma_prompt_see_both_ways_inside_each(tiny_graphs):
    pair, graphs = tiny_graphs("gemma3")
    shown = [302, *[IMAGE] * 4, 303]
    ids = torch.tensor([[1, *shown, *random_ids(3, 1), *shown, *random_ids(20, 2), *HEADER]])
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": (ids == IMAGE).long(),
        "pixel_values": torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(3)),
    }
    _, step = graphs.begin(arrays(batch))
    close(step.logits, pair.model(**batch).logits[:, -1])
    causal = pair.model(**{**batch, "token_type_ids": torch.zeros_like(ids)}).logits[:, -1]
    assert np.abs(step.logits - causal.numpy()).max() > 20 * CLOSE
