"""What an estimate is of, and its name in whatever is shown: only the LLC is ever called that."""

import re
from collections.abc import Mapping
from typing import Any

# By the key ``quantity`` of analysis.json; a document without one is of the LLC.
NAMES = {"llc": "LLC", "llc_self": "llc_self", "control": "control"}
_LLC = re.compile(r"\b(?:the )?LLCs?\b")


def name_of(document: Mapping[str, Any]) -> str:
    """The name of what ``document``, an analysis.json, is an estimate of: ``LLC``, ``llc_self``, ..."""
    return NAMES[document.get("quantity") or "llc"]


def told_of(quantity: str, sentence: str) -> str:
    """A sentence about the LLC as one about ``quantity``."""
    return sentence if quantity == "llc" else _LLC.sub(NAMES[quantity], sentence)
