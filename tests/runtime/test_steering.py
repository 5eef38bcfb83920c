"""The arithmetic that travels, against the method's own account and its properties (A3.4)."""

from types import SimpleNamespace

import torch

from mars_export.checkpoint.tensors import steering_digest, steering_tensors
from mars_export.methods.mars.rule import Rule
from mars_export.runtime.layer import HostedRule
from mars_export.runtime.trace import Trace
from mars_export.runtime.windows import WINDOW_VERSION, Window
from support import tiny
from support.artefacts import with_tensors
from support.oracle import Shown, bounded_push


class LayerRule(HostedRule, Rule):
    pass


def hosted(calibration, direction):
    layer, modalities = calibration.layers[0], list(calibration.source.modalities)
    module = LayerRule(direction.numel(), {**calibration.rules, "modalities": modalities}, layer)
    module.switch = SimpleNamespace(verified=True)
    module.load_state_dict(steering_tensors(with_tensors(calibration, direction))[layer])
    return module


def window(n, modality=0):
    ones = torch.ones(1, n, dtype=torch.long)
    context = torch.tensor([modality, 0, 0]).expand(1, n, -1)
    return Window(WINDOW_VERSION, ones.bool(), context, ones.cumsum(1) - 1, Trace())


def test_push_follows_the_method_on_a_dense_grid():
    calibration = tiny.calibration(
        "qwen3_vl", origin=-8.0, harmful=20.0, cap=35.0, gain=2.0, radius=1.0, separation=40.0
    )
    direction = torch.randn(tiny.HIDDEN, generator=torch.Generator().manual_seed(3))
    record = calibration.record
    module, unit = hosted(calibration, direction), direction / direction.norm()
    noise = torch.randn(401, tiny.HIDDEN, generator=torch.Generator().manual_seed(4))
    along = torch.linspace(-60, 80, 401)
    h = noise - (noise @ unit)[:, None] * unit + along[:, None] * unit
    for index, modality in enumerate(calibration.source.modalities):
        out = module.steer(h[None], window(401, index))[0]
        pushed = (out - h) @ unit
        want = torch.tensor([bounded_push(float(p), record, Shown(modality)) for p in along])
        torch.testing.assert_close(pushed, want, rtol=1e-4, atol=1e-4)
        centered, origin = along - record.shift[modality].at(), record.origin[modality]
        assert (pushed >= -1e-4).all()
        assert (pushed[(centered <= origin) | (centered >= record.cap)].abs() < 1e-4).all()
        assert (centered + pushed <= torch.maximum(centered, torch.tensor(record.cap)) + 1e-3).all()
        assert ((out - h).norm(dim=1) <= record.radius * record.separation + 1e-3).all()
        torch.testing.assert_close(out - pushed[:, None] * unit, h, rtol=1e-4, atol=1e-3)


def test_untouched_positions_keep_their_bits_in_every_dtype():
    module = hosted(tiny.calibration("gemma3"), torch.ones(tiny.HIDDEN))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        h = torch.randn(1, 9, tiny.HIDDEN).to(dtype)
        where = window(9)._replace(steered=torch.arange(9)[None] == 4)
        out = module.steer(h, where)
        assert out.dtype == dtype
        assert out[:, :4].equal(h[:, :4])
        assert out[:, 5:].equal(h[:, 5:])


def test_tensors_move_but_are_never_cast():
    module = hosted(tiny.calibration("gemma3"), torch.ones(tiny.HIDDEN))
    before = steering_digest({}, {0: module.tensors()})
    module.to(torch.bfloat16).half().double()
    assert steering_digest({}, {0: module.tensors()}) == before
    assert {b.dtype for b in module.buffers()} == {torch.float32}
