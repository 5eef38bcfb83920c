"""Projector: a method's rule on visual tokens, where they enter the text decoder.

What a vision tower and its projector make of a picture or clip stands there once, whichever way
it came: encoded by this forward, by generate() beforehand, by a caller, or in pieces.
"""

from typing import Any

from mars_export.runtime.layer import AT_MODEL, HostedRule, replace_forward
from mars_export.runtime.windows import NoWindow, Window


def host_projector(model: Any, decoder: Any, rule: type[HostedRule]) -> dict[int, HostedRule]:
    """Put a rule into the text decoder, whose forward runs it on the visual tokens it takes in."""
    config = model.config
    if config.engine_gives_windows:
        raise RuntimeError(
            "steered checkpoint: the engine does not say which tokens are visual, and those are "
            "steered; use `transformers serve --trust-remote-code`"
        )
    hosted = rule(config.get_text_config().hidden_size, config.steering, AT_MODEL)
    hosted.visual = True
    decoder.steering = hosted
    replace_forward(decoder, steered_decoder)
    return {AT_MODEL: hosted}


def steered_decoder(
    decoder: Any, *args: Any, steering_window: Window | NoWindow = NoWindow.UNKNOWN, **kwargs: Any
) -> Any:
    """forward() of a steered decoder; at module level, it survives deepcopy and pickle."""
    if steering_window is NoWindow.UNKNOWN and decoder.steering.switch.active:
        raise RuntimeError(
            "the text decoder was reached without knowing which tokens are visual: call the model "
            "that from_pretrained returned, not its inner modules, or run it without steering "
            "(with model.steering.off():)"
        )
    if not isinstance(steering_window, NoWindow):
        visual, embeds = steering_window.visual, kwargs.get("inputs_embeds")
        if visual is None or embeds is None:
            raise RuntimeError(
                "steered checkpoint: its visual tokens did not come to the text decoder as "
                "inputs_embeds with a window of this release; install the one that wrote it"
            )
        window = steering_window._replace(steered=visual, unknown=None)
        kwargs["inputs_embeds"] = decoder.steering.steer(embeds, window)
    return type(decoder).forward(decoder, *args, steering_window=steering_window, **kwargs)
