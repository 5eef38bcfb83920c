"""Results of a study for people: Markdown tables and dot plots."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from counts import GOAL, LIMIT, Estimate, Part, Row
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mars_export.common.plotting import BLUE, GRAY, LIGHT, ORANGE, WIDTH, bare, titled

__all__ = [
    "dots",
    "harmful_table",
    "harmless_table",
    "lanes",
    "markdown",
    "matrices",
    "summary",
]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(share: float) -> str:
    """With one digit, as `3.3 %`."""
    return f"{100 * share:.1f} %"


def _points(rise: Estimate) -> str:
    return f"{100 * rise.value:+.1f} ({100 * rise.low:+.1f} to {100 * rise.high:+.1f})"


def harmless_table(rows: Sequence[Row], parts: Sequence[Part]) -> str:
    """What harmless requests suffer: new refusals of those that the base does not refuse."""
    lines = []
    for row in rows:
        if row.harmful:
            continue
        runs = [p for p in parts if p.condition == row.condition and not p.harmful]
        worst = max((p.gained / p.at_risk for p in runs if p.at_risk), default=0.0)
        new = row.new
        lines.append([
            row.condition, f"{row.off}/{row.n}", f"{row.gained}/{row.n - row.off}",
            percent(new.value) if new else "-", percent(new.high) if new else "-",
            percent(worst), f"{row.unclear_off} -> {row.unclear_on}",
            f"{row.uncalibrated}/{row.n}", row.verdict,
        ])  # fmt: skip
    columns = (
        "harmless requests", "refused off", "newly refused / at risk", "share", "95 % bound",
        "worst run", "unclear off -> on", "not calibrated", "goal",
    )  # fmt: skip
    return markdown(columns, lines)


def harmful_table(rows: Sequence[Row]) -> str:
    """What harmful requests gain, and what is lost."""
    lines = [
        [
            row.condition, percent(row.off / row.n), percent(row.on / row.n),
            _points(row.rise), f"{row.lost}/{row.off}", f"{row.unclear_off} -> {row.unclear_on}",
            f"{row.uncalibrated}/{row.n}", row.verdict,
        ]
        for row in rows
        if row.harmful
    ]  # fmt: skip
    columns = (
        "harmful requests", "refused off", "refused on", "rise in points (95 %)",
        "no longer refused", "unclear off -> on", "not calibrated", "goal",
    )  # fmt: skip
    return markdown(columns, lines)


def summary(rows: Sequence[Row]) -> str:
    """How many goals were reached, and which were not."""
    judged = [row for row in rows if row.verdict]
    reached = sum(row.verdict == "met" for row in judged)
    open_ = [row for row in judged if row.verdict == "not shown"]
    few = f" {len(open_)} not shown: at most {percent(GOAL)}, but a bound above {percent(LIMIT)}."
    lines = [f"{reached} of {len(judged)} goals reached.{few if open_ else ''}"]
    for row in judged:
        if row.verdict == "met":
            continue
        label = "harmful" if row.harmful else "harmless"
        if row.harmful:
            reason = f"{row.lost} of {row.off} no longer refused"
        elif row.new is None:
            reason = "the base refuses all of them"
        else:
            reason = f"{percent(row.new.value)} newly refused, bound {percent(row.new.high)}"
        lines.append(f"- {row.verdict}: {label} `{row.condition}`: {reason}")
    return "\n".join(lines) + "\n"


def dots(rows: Sequence[Row], parts: Sequence[Part], title: str, subtitle: str) -> Figure:
    """Two panels: harmless requests newly refused, and refusals of harmful ones, off and on."""
    names = list(dict.fromkeys(row.condition for row in rows))
    drawing = Figure(figsize=(WIDTH, 1.6 + 0.26 * len(names)))
    titled(drawing, title, subtitle)
    left, right = drawing.subplots(1, 2, sharey=True)
    _harmless(left, names, rows, parts)
    _harmful(right, names, rows)
    left.set_yticks(range(len(names)), labels=names, fontsize=8.5)
    left.set_ylim(len(names) - 0.5, -0.5)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(axis="x", labelsize=8.5)
        axes.grid(axis="y", color=LIGHT, linewidth=0.6)
        bare(axes)
    return drawing


def matrices(results: Mapping[str, Sequence[Row]], expected: Mapping[str, str]) -> str:
    """Settings against conditions: new refusals, refusals of harmful requests, log-odds.

    Args:
        results: Rows of each setting.
        expected: What is expected of a setting; may be empty.
    """
    tables: dict[str, tuple[bool, Callable[[Row], str]]] = {
        "Harmless requests newly refused / at risk, and the 95 % bound": (False, _new),
        "Harmful requests refused with steering on, of those asked": (True, _refused),
        "Harmful requests no longer refused": (True, lambda row: f"{row.lost}/{row.off}"),
        "Change of refusal log-odds of harmless requests, nats": (False, _odds),
        "Change of refusal log-odds of harmful requests, nats": (True, _odds),
    }
    parts = []
    for title, (harmful, cell) in tables.items():
        names = _conditions(results, harmful)
        lines = []
        for setting, rows in results.items():
            cells = {row.condition: cell(row) for row in rows if row.harmful == harmful}
            further = [expected[setting]] if expected else []
            lines.append([setting, *(cells.get(name, "-") for name in names), *further])
        columns = ["setting", *names, *(["expected"] if expected else [])]
        parts.append(f"{title}\n\n{markdown(columns, lines)}")
    return "\n".join(parts)


def _new(row: Row) -> str:
    bound = f" (at most {percent(row.new.high)})" if row.new else ""
    return f"{row.gained}/{row.n - row.off}{bound}"


def _refused(row: Row) -> str:
    return f"{row.on}/{row.n} ({row.off} off)"


def _odds(row: Row) -> str:
    change = row.log_odds
    return f"{change.value:+.2f} ({change.low:+.2f} to {change.high:+.2f})"


def _conditions(results: Mapping[str, Sequence[Row]], harmful: bool | None = None) -> list[str]:
    rows = [row for several in results.values() for row in several]
    return list(dict.fromkeys(row.condition for row in rows if harmful in (None, row.harmful)))


def lanes(results: Mapping[str, Sequence[Row]], title: str) -> Figure:
    """A panel for each condition, with a line for each setting.

    Harmless requests are blue: newly refused of those at risk, with 95 % bounds. Harmful ones are
    orange: refused with steering on, with the interval of the rise; hollow with steering off.
    """
    names, settings = _conditions(results), list(results)
    drawing = Figure(figsize=(1.9 + 1.6 * len(names), 1.7 + 0.26 * len(settings)))
    titled(drawing, title, "blue: harmless, newly refused; orange: harmful, refused (hollow: off)")
    panels = drawing.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(name, fontsize=9)
        for place, rows in enumerate(results.values()):
            mine = [row for row in rows if row.condition == name]
            _harmless_dots(axes, [(place - 0.12, row) for row in mine])
            _harmful_dots(axes, [(place + 0.12, row) for row in mine])
        axes.set_xlim(-0.04, 1.04)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="y", color=LIGHT, linewidth=0.6)
        bare(axes)
    panels[0].set_yticks(range(len(settings)), labels=settings, fontsize=8.5)
    panels[0].set_ylim(len(settings) - 0.5, -0.5)
    return drawing


def _harmless_dots(axes: Axes, placed: Iterable[tuple[float, Row]]) -> None:
    for place, row in placed:
        if not row.harmful and row.new:
            axes.plot([row.new.low, row.new.high], [place, place], color=BLUE, linewidth=1.4)
            axes.plot(row.new.value, place, "o", color=BLUE, markersize=4.5)


def _harmful_dots(axes: Axes, placed: Iterable[tuple[float, Row]]) -> None:
    for place, row in placed:
        if row.harmful:
            off = row.off / row.n
            ends = [min(1.0, max(0.0, off + x)) for x in (row.rise.low, row.rise.high)]
            axes.plot(ends, [place, place], color=ORANGE, linewidth=1.4)
            axes.plot(off, place, "o", color=GRAY, markerfacecolor="white", markersize=4.5)
            axes.plot(row.on / row.n, place, "o", color=ORANGE, markersize=4.5)


def _harmless(axes: Axes, names: Sequence[str], rows: Sequence[Row], parts: Sequence[Part]) -> None:
    axes.set_title("harmless, newly refused", fontsize=9.5)
    for x in (GOAL, LIMIT):
        axes.axvline(x, color=GRAY, linewidth=0.9, linestyle=(0, (4, 3)))
    single = [p for p in parts if not p.harmful and p.at_risk]
    places = [names.index(p.condition) + 0.28 for p in single]
    axes.plot([p.gained / p.at_risk for p in single], places, "|", color=GRAY, markersize=5)
    _harmless_dots(axes, [(names.index(row.condition), row) for row in rows])
    most = max(0.1, _largest(rows, lambda r: r.new.high if r.new else 0.0)) + 0.02
    axes.set_xlim(-0.02 * most, most)


def _harmful(axes: Axes, names: Sequence[str], rows: Sequence[Row]) -> None:
    axes.set_title("harmful, refused: off (hollow), on", fontsize=9.5)
    _harmful_dots(axes, [(names.index(row.condition), row) for row in rows])
    axes.set_xlim(-0.02, 1.02)


def _largest(rows: Sequence[Row], bound: Callable[[Row], float]) -> float:
    return max((bound(row) for row in rows if not row.harmful), default=0.0)
