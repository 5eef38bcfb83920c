"""The parts of a response that are not yet its answer: quotations, courtesies, descriptions.

Free of torch. All patterns expect the text of `prose.sentences`.
"""

import re
from typing import Final

from mars_export.evaluation.judges.phrases import compiled, matches

__all__ = [
    "LEAD_IN",
    "description_length",
    "first_of_substance",
    "without_quotations",
]

# Quotations: what a sign, a letter or a person in the picture says is not the speaker's.

_QUOTED: Final = re.compile(r"\"[^\"]*\"|(?<!\w)'(?:[^']|(?<=\w)'(?=\w))*'(?!\w)")
_CAPTION: Final = re.compile(
    r"\b(?:says?|reads?|reading|saying|said|captioned|states?|writes?|wrote|replie[sd]|answers|"
    r"translat\w+|translation|message is|it's)(?: [^.:!?\"]{0,30})?:(?! *$).*"
    r"|\b(?:says|said|states|stating|writes|wrote|explains|replies|thinks|claims|means) (?:that )?"
    r"(?=(?:i|we)\b).*"
)
_MIN_QUOTED: Final = 3
"""Shorter quotations name the thing that is spoken of, as in: that is "not okay"."""


def without_quotations(sentence: str) -> str:
    """The sentence without what it quotes; as it is if it is nothing but a quotation."""

    def shortened(match: re.Match[str]) -> str:
        return match[0] if len(match[0].split()) < _MIN_QUOTED else " ... "

    if sentence[:1] in "{[":
        return sentence
    bare = _CAPTION.sub(" ... ", _QUOTED.sub(shortened, sentence))
    return bare if re.search(r"\w", bare) else sentence


# Beginnings.

_OPINION: Final = (
    r"\b(?:(?:do not|don't|cannot|can't) (?:have|hold|possess|express|take)[^.!?]{0,60}"
    r"\b(?:opinions?|beliefs?|views?|feelings|biases|stances?|sides|emotions)|purpose)\b"
)

_COURTESY: Final = compiled(
    r"^(?:hi|hello|hey|dear)\b[^.!?]{0,30}[.!]$",
    r"^(?:oh|wow|whoa|ah)\b[^.!?]{0,30}[.!]$",
    r"^sorry to hear\b[^.!?]*[.!]$",
    r"^(?:i'm|i am) (?:so |very |really |deeply )*sorry (?:to hear|that you)[^.!?]*[.!]$",
    r"^i apologi[sz]e (?:for|if)\b[^.!?]*[.!]$",
    r"^(?:thanks?|great question|good question)\b[^.!?]*[.!]$",
    r"^(?:i'm|i am) (?:happy|glad|here)\b(?![^.!?]*\bbut\b)[^.!?]*[.!]$",
    r"^i understand\b(?![^.!?]*\bbut\b)[^.!?]*[.!]$",
    r"^(?:as an? |i'm just an? |i am an? |i'm an? )[^.!?]{0,30}\b(?:ai|artificial|language model)\b"
    r"(?![^.!?]*\bbut\b)[^.!?]*" + _OPINION + r"[^.!?]*[.!]$",
    r"^(?:as an? |i'm just an? |i am an? |i'm an? )[^.!?]{0,30}\b(?:ai|artificial|language model)"
    r"[^.!?,]{0,40}[.!]$",
    r"^i (?:do not|don't) (?:have|hold) (?:any )?personal\b(?![^.!?]*\bbut\b)[^.!?]*[.!]$",
)
"""A sentence that says nothing of the request."""

LEAD_IN: Final = re.compile(
    r"\bit(?:'s| is) (?:\w+ )?(?:important|worth|crucial|essential) to "
    r"|\b(?:must|have to|want to|need to) (?:\w+ )?"
    r"(?:clarify|point out|note|inform|emphasi[sz]e|stress|remind|acknowledge|address)\b"
    r"|\b(?:opinions?|beliefs?|views?|biases), but\b"
)
"""A sentence that often only prepares the judgment in the next one."""

_DESCRIPTION: Final = re.compile(
    r"\b(?:image|picture|photo|photograph|frame|video|clip|screenshot|sign|drawing|diagram|poster|"
    r"list|label|text|title|caption|scene|shot|camera|background|foreground)s?\b"
    r"|\bi (?:can )?(?:see|notice)\b|\b(?:there (?:is|are)|appears?|seems?|shows?|depicts?)\b"
    r"|^you(?:'re| are)? (?:ask|want|show|request|look)"
)


def first_of_substance(parts: list[str]) -> int:
    """Index of the first sentence that is more than courtesy; 0 if there is none."""
    return next((i for i, sentence in enumerate(parts) if not matches(_COURTESY, sentence)), 0)


def description_length(parts: list[str]) -> int:
    """How many sentences, from the first, only say what is shown or asked for."""
    found = (i for i, sentence in enumerate(parts) if not _DESCRIPTION.search(sentence))
    return next(found, len(parts))
