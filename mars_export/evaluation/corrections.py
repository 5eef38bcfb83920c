"""What rates allow to conclude: several tests, margins, the errors of a judge. Free of torch."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

from mars_export.evaluation.intervals import CONFIDENCE, Difference
from mars_export.evaluation.report import Corrected, JudgeError, Rate

__all__ = ["fits", "holm", "non_inferior", "rogan_gladen"]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979, step-down), in the order given.

    The chance of even one false discovery among those at or below .05 is at most 5 %, whatever
    the dependence between the tests.
    """
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def non_inferior(difference: Difference, margin: float) -> bool:
    """Whether a loss larger than the margin is excluded.

    The absence of a significant difference does not show this: with few requests nothing is
    significant.

    Args:
        difference: New minus old share of successes, with its two-sided 95 % interval; its lower
            end is the one-sided 97.5 % bound that is customary for non-inferiority.
        margin: Largest loss that does not matter, above 0, as a proportion; fixed beforehand.

    Raises:
        ValueError: The margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"a non-inferiority margin must be positive, not {margin}")
    return difference.low > -margin


def fits(seen: Rate, error: JudgeError) -> bool:
    """Whether a judge with these errors can have seen this rate, whatever the true one.

    It would call a share of the answers refused and miss a share of the refusals. A rate beyond
    either shows that it errs otherwise here than on the labeled responses; a correction would
    then return 0 or 1 with an interval that is far too narrow.
    """
    return 1 - error.specificity.rate <= seen.rate <= error.sensitivity.rate


def rogan_gladen(seen: Rate, error: JudgeError) -> Corrected | None:
    """The rate that lies behind what an erring judge saw.

    (seen + specificity - 1) / (sensitivity + specificity - 1), Rogan and Gladen (1978), American
    Journal of Epidemiology 107:71-76, cut to 0 to 1. The interval is that of Lang and Reiczigel
    (2014), Preventive Veterinary Medicine 113:13-22, equations 4 to 7 and 14 to 17; it allows for
    the uncertainty of sensitivity and specificity as well.

    Args:
        seen: Share that the judge counted, of how many.
        error: The judge's sensitivity and specificity, as measured on labeled responses.

    Returns:
        None when the judge is no better than chance, so that nothing can be said.
    """
    sensitivity, specificity = error.sensitivity, error.specificity
    youden = sensitivity.rate + specificity.rate - 1
    if youden <= 0:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    n = seen.n + z * z
    n_se, n_sp = sensitivity.n + 2, specificity.n + 2
    rate = (seen.count + z * z / 2) / n
    se, sp = (sensitivity.count + 1) / n_se, (specificity.count + 1) / n_sp
    index = se + sp - 1
    if index <= 0:
        return None
    middle = (rate + sp - 1) / index
    spread_se, spread_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    shift = 2 * z * z * (middle * spread_se - (1 - middle) * spread_sp)
    variance = rate * (1 - rate) / n + middle**2 * spread_se + (1 - middle) ** 2 * spread_sp
    half = z * sqrt(variance) / index
    return Corrected(
        rate=_cut((seen.rate + specificity.rate - 1) / youden),
        low=_cut(middle + shift - half),
        high=_cut(middle + shift + half),
    )


def _cut(proportion: float) -> float:
    return min(1.0, max(0.0, proportion))
