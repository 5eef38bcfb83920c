"""What a request has come to at each column, against a plain count, and in pieces as in one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_export.runtime.positions import contexts
from mars_export.runtime.windows import UNKNOWN, History

COLUMN = st.tuples(st.integers(0, 2), st.booleans())
"""Modality that a column shows, and whether it is steered."""
REQUESTS = st.lists(st.lists(COLUMN, min_size=1, max_size=6), min_size=1, max_size=4)


def counted(columns):
    """(modality, visual tokens of the turn, answers begun before) at each column of one request."""
    told, modality, visual, turn = [], 0, 0, 0
    for shown, steered in columns:
        modality, visual = max(modality, shown), visual + (shown > 0)
        told.append([modality, visual, turn])
        if steered:
            visual, turn = 0, turn + 1
    return told


def row(columns):
    shown, steered = zip(*columns, strict=True)
    return torch.tensor([shown]), torch.tensor([steered])


@given(REQUESTS)
@settings(deadline=None)
def test_packed_requests_are_counted_one_by_one(requests):
    shown, steered = row([column for columns in requests for column in columns])
    number = [i for i, columns in enumerate(requests) for _ in columns]
    told = contexts(shown, steered, request=torch.tensor([number]))
    assert told[0].tolist() == [line for columns in requests for line in counted(columns)]


@given(REQUESTS, st.data())
@settings(deadline=None)
def test_a_request_goes_on_from_the_cache_and_later_ones_do_not(requests, data):
    first = requests[0]
    cut = data.draw(st.integers(0, len(first) - 1), label="columns in the cache")
    shown, steered = row([column for columns in requests for column in columns])
    number = torch.tensor([[i for i, columns in enumerate(requests) for _ in columns]])
    before = None
    if cut:
        cached = contexts(shown[:, :cut], steered[:, :cut])
        before = History(torch.full((1, cut), UNKNOWN), cached, steered[:, :cut], "")
    rest = [x[:, cut:] for x in (shown, steered)]
    told = contexts(*rest, before, number[:, cut:])
    assert told[0].tolist() == [line for columns in requests for line in counted(columns)][cut:]


@given(st.lists(COLUMN, min_size=1, max_size=6), st.integers(1, 4), st.booleans())
@settings(deadline=None)
def test_generated_text_goes_on_counting_where_it_is_steered(columns, more, steered):
    shown, flags = row(columns)
    history = History(torch.full_like(shown, UNKNOWN), contexts(shown, flags), flags, "")
    told = history.with_unknown_text(more, steered=steered).context
    assert told[0].tolist() == counted([*columns, *[(0, steered)] * more])
