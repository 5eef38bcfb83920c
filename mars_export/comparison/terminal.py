"""A comparison in the terminal. Free of torch."""

from mars_export.comparison.record import Comparison

__all__ = ["lines"]


def lines(comparison: Comparison) -> list[str]:
    """A table: of each contender what it refuses of harmful requests, and newly of harmless ones.

    Contenders that were turned down follow, each with the reason.
    """
    answered = comparison.answered
    text = []
    if answered is not None:
        shown = dict.fromkeys(cell.modality for cell in answered.plain.cells)
        refused = {(c.arm, c.modality): c.refused for c in answered.plain.cells if c.harmful}
        new = {(p.arm, p.modality): (p.newly_refused, p.at_risk) for p in answered.harmless}
        heads = [f"harmful {m}" for m in shown] + [f"harmless {m}" for m in shown]
        table = [["", *heads]]
        for contender in comparison.compared:
            places = [(contender.name, modality) for modality in shown]
            rates = [refused.get(place) for place in places]
            table.append([
                contender.name,
                *(f"{rate.count}/{rate.n}" if rate else "-" for rate in rates),
                *("{}/{}".format(*new[place]) if place in new else "-" for place in places),
            ])  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        text = [
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        kinds = "with controls" if answered.controlled else "controls were not run"
        text.append(f"harmful: refused; harmless: newly refused, {kinds}")
    down = [c for c in comparison.contenders if c.turned_down]
    return text + [f"{c.name} was turned down: {c.turned_down}" for c in down]
