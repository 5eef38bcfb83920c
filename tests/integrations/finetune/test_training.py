"""Steering acts in training as in use, and gradients go through the push."""

from contextlib import contextmanager

import pytest
import torch

from mars_export.families import decoder_layers
from mars_export.methods.mars.rule import Rule
from support import tiny

MODALITIES = ("text", "image")
pytestmark = pytest.mark.use("training")


def step(model, batch):
    """Loss and gradients by parameter name."""
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


@contextmanager
def differentiable_hook(model, record, unit, end):
    """Method A3.6, written in torch on its own, at the header of both rows."""

    def change(_module, _args, out):
        shift = torch.tensor([record.shift[m].at() for m in MODALITIES])
        origin = record.origin["text"]
        p = out[:, end] @ unit - shift
        z = torch.clamp((p - origin) / (record.harmful["text"] - origin), min=0)
        grown = record.gain * record.separation * z
        room = torch.clamp(record.cap - p, min=0)
        s = torch.minimum(grown, room).clamp(max=record.radius * record.separation)
        pushed = out[:, end] + s[:, None] * unit
        return torch.cat([out[:, :end], pushed[:, None], out[:, end + 1 :]], 1)

    handle = decoder_layers(model)[record.layer].register_forward_hook(change)
    yield
    handle.remove()


def close(got, want):
    scale = max(float(w.abs().max()) for w in want.values())
    return all(torch.allclose(got[n], w, rtol=1e-4, atol=1e-5 * scale) for n, w in want.items())


def test_loss_and_gradients_are_those_of_a_hook_set_by_hand(pair):
    loss, gradients = step(pair.model.train(), pair.batch)
    pushes = [row[0].strength for row in pair.model.steering.last]
    assert [len(row) for row in pair.model.steering.last] == [1, 1]
    assert any(push > 0 for push in pushes)
    plain_loss, plain = step(pair.base.train(), pair.batch)
    with differentiable_hook(pair.base, pair.record, pair.unit, pair.end):
        want_loss, want = step(pair.base, pair.batch)
    assert torch.allclose(loss, want_loss, rtol=1e-5)
    assert not torch.allclose(loss, plain_loss, rtol=1e-4)
    assert close(gradients, want)
    assert not close(gradients, plain)


def test_the_gradient_is_the_slope_of_the_loss(pair):
    """Finite differences along the gradient, in the layer below the push."""
    model = pair.model.train()
    _, gradients = step(model, pair.batch)
    name = next(n for n in gradients if f"layers.{tiny.LAYER}.mlp.down_proj" in n)
    weight, gradient = model.get_parameter(name), gradients[name]
    along, losses = gradient / gradient.norm(), []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-2 * along
            losses.append(model(**pair.batch).loss.double())
            weight -= sign * 1e-2 * along
    slope = float(losses[0] - losses[1]) / 2e-2
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02)


def test_training_mode_changes_no_loss(pair):
    trained = pair.model.train()(**pair.batch).loss
    assert trained.equal(pair.model.eval()(**pair.batch).loss)


def test_switched_off_loss_and_gradients_are_those_of_the_base(pair):
    pair.model.steering.enabled = False
    loss, gradients = step(pair.model.train(), pair.batch)
    want_loss, want = step(pair.base.train(), pair.batch)
    assert loss.equal(want_loss)
    assert all(gradients[n].equal(w) for n, w in want.items())


def test_an_optimizer_does_not_reach_the_steering(pair):
    model = pair.model.train()
    before = {n: b.clone() for n, b in model.named_buffers() if ".steering." in n}
    assert {name.rpartition(".")[2] for name in before} == set(Rule.TENSORS)
    assert not any("steering" in n for n, _ in model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    for _ in range(2):
        step(model, pair.batch)
        optimizer.step()
    assert all(model.get_buffer(n).equal(b) for n, b in before.items())
    model.verify_steering()


def test_gradient_checkpointing_repeats_no_record_and_changes_no_gradient(pair):
    loss, want = step(pair.model.train(), pair.batch)
    # The newer name in Transformers, where there is one.
    model = pair.model
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    again, gradients = step(model, pair.batch)
    assert again.equal(loss)
    assert close(gradients, want)
    assert [len(row) for row in pair.model.steering.last] == [1, 1]
