"""Off is the base, for the requests it is meant for and for no others."""

import contextvars
import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from support.conversations import SPECIAL, Batch, Row, Turn
from support.oracle import told

KINDS = ["llama", "gemma3", "qwen3_vl"]
STEPS = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "suppress_tokens": SPECIAL}


@pytest.fixture(params=KINDS)
def pair(request, talkers):
    return talkers(request.param)


def batch_of(pair, *turns):
    return Batch.of(pair.family.model_type, Row.of(turns or (Turn(5),)))


def test_inside_off_it_is_the_base_and_behind_it_not(pair):
    batch = batch_of(pair)
    want, base = pair.model.generate(**batch.inputs, **STEPS), pair.base.generate
    with pair.model.steering.off():
        assert not pair.model.steering.active
        assert pair.model.generate(**batch.inputs, **STEPS).equal(base(**batch.inputs, **STEPS))
        assert pair.model.steering.last == []
        with pair.model.steering.off():
            pass
        assert pair.model(**batch.inputs).logits.equal(pair.base(**batch.inputs).logits)
        assert pair.model.steering.last == []
    assert pair.model.steering.active
    assert pair.model.generate(**batch.inputs, **STEPS).equal(want)


def test_scopes_that_are_left_out_of_order(pair):
    """As of two generators that are read in turns, each inside a context of its own."""
    first, second = pair.model.steering.off(), pair.model.steering.off()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not pair.model.steering.active
    second.__exit__(None, None, None)
    assert pair.model.steering.active


def test_a_scope_ends_wherever_its_context_was_copied_to(pair):
    def steps():
        with pair.model.steering.off():
            yield pair.model.steering.active
        yield pair.model.steering.active

    with pair.model.steering.off():
        copied = contextvars.copy_context()
        assert not copied.run(lambda: pair.model.steering.active)
    assert copied.run(lambda: pair.model.steering.active)
    reading = steps()
    assert not contextvars.copy_context().run(next, reading)
    assert contextvars.copy_context().run(next, reading)


def test_an_error_inside_off_leaves_it_on(pair):
    with pytest.raises(KeyError), pair.model.steering.off():
        raise KeyError
    assert pair.model.steering.active
    pair.model(**batch_of(pair).inputs)
    assert len(told(pair.model)[0]) == 1


def test_off_takes_text_without_a_header(pair):
    batch = batch_of(pair, Turn(6, header=()))
    with pair.model.steering.off():
        out = pair.model(**batch.inputs, labels=batch.ids)
    assert out.loss.equal(pair.base(**batch.inputs, labels=batch.ids).loss)


def test_off_is_of_its_thread(pair):
    """Two threads at once: each request is as the thread that made it wants it."""
    batch, meet = batch_of(pair), threading.Barrier(2)
    want = pair.model(**batch.inputs).logits
    base = pair.base(**batch.inputs).logits

    def run(off):
        with torch.no_grad():
            if not off:
                meet.wait()
                outs = [pair.model(**batch.inputs).logits for _ in range(5)]
                meet.wait()
                return outs
            with pair.model.steering.off():
                meet.wait()
                outs = [pair.model(**batch.inputs).logits for _ in range(5)]
                meet.wait()
                return outs

    with ThreadPoolExecutor(2) as pool:
        on, off = pool.map(run, (False, True))
    assert all(logits.equal(want) for logits in on)
    assert all(logits.equal(base) for logits in off)
    assert not want.equal(base)


def test_off_is_of_one_model(talkers):
    one, other = talkers("llama"), talkers("gemma3_text")
    batch = batch_of(one)
    with one.model.steering.off():
        other.model(**batch.inputs)
    assert len(told(other.model)[0]) == 1


def test_a_generate_that_began_inside_off_ends_unsteered(pair):
    """A processor of the logits that leaves the context changes nothing for this call."""
    batch, scope = batch_of(pair), pair.model.steering.off()
    scope.__enter__()
    entered = [scope]

    def leave(input_ids, scores):
        if entered:
            entered.pop().__exit__(None, None, None)
        return scores

    got = pair.model.generate(**batch.inputs, **STEPS, use_cache=False, logits_processor=[leave])
    assert got.equal(pair.base.generate(**batch.inputs, **STEPS))


def test_a_cache_that_was_filled_in_off_is_refused(pair):
    batch = batch_of(pair)
    with pair.model.steering.off():
        cache = pair.model(**batch.inputs, use_cache=True).past_key_values
    more = batch.asked(Turn(3), 1)
    later = {"input_ids": more.ids[:, batch.ids.shape[1] :], "past_key_values": cache}
    with pytest.raises(ValueError, match="not filled by this model with steering on"):
        pair.model(**later)
    with pair.model.steering.off():
        pair.model(**later)


def test_a_steered_cache_that_was_used_in_off_is_refused(pair):
    batch = batch_of(pair)
    out = pair.model.generate(**batch.inputs, **STEPS, return_dict_in_generate=True)
    more, cache = batch.said(out.sequences[:, -4:]).asked(Turn(3), 1), out.past_key_values
    with pair.model.steering.off():
        again = pair.model.generate(**more.inputs, **STEPS, past_key_values=cache)
    more = more.said(again[:, -4:]).asked(Turn(3), 2)
    with pytest.raises(ValueError, match="not filled by this model with steering on"):
        pair.model.generate(**more.inputs, **STEPS, past_key_values=cache)


def test_a_copy_made_inside_off_is_on(pair):
    batch = batch_of(pair)
    want = pair.model(**batch.inputs).logits
    with pair.model.steering.off():
        twin = copy.deepcopy(pair.model)
        assert twin.steering.active
        torch.testing.assert_close(twin(**batch.inputs).logits, want)


def test_compiled_inside_off_a_copy_is_on_and_the_model_off_or_it_raises(talkers):
    pair = talkers("llama")
    batch = batch_of(pair)
    want = pair.model(**batch.inputs).logits
    with pair.model.steering.off():
        twin = copy.deepcopy(pair.model)
        compiled = torch.compile(twin, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(**batch.inputs).logits, want)
        # Where a graph may break, the compiled model asks the thread; where it may not, it raises.
        again = torch.compile(pair.model, backend="eager")(**batch.inputs).logits
        torch.testing.assert_close(again, pair.base(**batch.inputs).logits)
        torch.compiler.reset()
        with pytest.raises(Exception, match=r"off\(\) does not reach into a compiled model"):
            torch.compile(pair.model, backend="eager", fullgraph=True)(**batch.inputs)


def test_the_switch_takes_true_and_false_alone_and_no_other_name(pair):
    steering = pair.model.steering
    for word in ("no", 0, None):
        with pytest.raises(TypeError, match="takes True or False"):
            steering.enabled = word
    with pytest.raises(AttributeError, match="no attribute 'enable' to set"):
        steering.enable = False
    assert steering.enabled is True


def test_its_repr_says_what_it_did(pair):
    batch = batch_of(pair)
    steering = pair.model.steering
    pair.model(**batch.inputs)
    assert "Steering on: mars, layers" in repr(steering)
    assert f"the last {steering.last[0][-1]}" in repr(steering)
    with steering.off():
        assert "Steering off here" in repr(steering)
        pair.model(**batch.inputs)
    assert "no request steered yet" in repr(steering)
