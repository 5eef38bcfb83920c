"""What makes two texts the same."""

import unicodedata
from functools import lru_cache

__all__ = ["normalized"]


@lru_cache(maxsize=65536)
def normalized(text: str) -> str:
    """The words and digits of a text alone, in one form.

    Letter case, blanks, punctuation, invisible characters and how an accent is encoded are no
    difference: "How do I?" and "how  do i" are the same. Empty where there is nothing else.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = (c for c in folded if unicodedata.category(c) != "Cf")
    words = "".join(" " if unicodedata.category(c)[0] in "PZC" else c for c in visible)
    return " ".join(words.split())
