"""How long each contender takes, one request at a time, in interleaved rounds."""

from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import Final, NamedTuple

from mars_export.common.progress import Tick
from mars_export.common.vocabulary import Modality
from mars_export.comparison.record import Ratio, Speed
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.baselines.base import Batch
from mars_export.evaluation.engines.in_process import Models, answered_by
from mars_export.evaluation.overhead import Cost
from mars_export.evaluation.report import REFERENCE
from mars_export.inputs.requests import Request

__all__ = ["FEWEST", "ROUNDS", "TOKENS", "measure_speed"]

ROUNDS: Final = 8
"""Most requests of each modality that count; one more, which does not, comes first."""

FEWEST: Final = 3
"""Requests of a modality, that one included, without which there are no quartiles."""

TOKENS: Final = 16
"""Longest answer, beside that of one token."""


class _Times(NamedTuple):
    """Seconds to the first token, and per further one; None where there was none."""

    first: float
    further: float | None


def measure_speed(
    arms: Sequence[Arm], models: Models, requests: Mapping[Modality, Sequence[Request]], tick: Tick
) -> list[Speed]:
    """Answer harmless requests with one token and with several, all contenders in each round.

    Every other round goes through them backwards, so that none always comes first. Times of the
    same round are compared: machines are noisy, and the noise is in all of them.

    Args:
        arms: The reference among them; those of baselines fitted.
        models: Their checkpoints.
        requests: Of each modality, at least `FEWEST`; the first is not counted.
        tick: Told how many rounds there are, and of how many.
    """
    speeds, total, done = [], sum(map(len, requests.values())), 0
    for modality, asked in requests.items():
        rounds = []
        for number, request in enumerate(asked):
            order = arms[:: -1 if number % 2 else 1]
            rounds.append({arm.name: _times(arm, models, request) for arm in order})
            done += 1
            tick(done, total)
        speeds += [_speed(arm.name, modality, rounds[1:]) for arm in arms if arm.name != REFERENCE]
    return speeds


def _times(arm: Arm, models: Models, request: Request) -> _Times:
    first = _cost(arm, models, request, 1)
    # Again, for what the first answer may have left: a caption that is remembered.
    one, more = (_cost(arm, models, request, tokens) for tokens in (1, TOKENS))
    further = more.steps - one.steps
    rest = max(more.seconds - one.seconds, 0.0)
    return _Times(first.seconds, rest / further if further > 0 else None)


def _cost(arm: Arm, models: Models, request: Request, tokens: int) -> Cost:
    loaded = models[arm.directory]
    asked = [arm.request(request)]
    return answered_by(arm, loaded, Batch(asked, loaded.inputs(asked), tokens)).cost


def _speed(arm: str, modality: Modality, rounds: Sequence[Mapping[str, _Times]]) -> Speed:
    first = [r[arm].first / r[REFERENCE].first for r in rounds]
    further = [(r[arm].further, r[REFERENCE].further) for r in rounds]
    known = [one / base for one, base in further if one is not None and base]
    return Speed(
        arm=arm,
        modality=modality,
        first_token=_ratio(first),
        decode=_ratio(known) if len(known) > 1 else None,
        n=len(rounds),
    )


def _ratio(values: Sequence[float]) -> Ratio:
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Ratio(value=round(middle, 4), low=round(low, 4), high=round(high, 4))
