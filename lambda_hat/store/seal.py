"""The seal of a JSON document: ``format`` first and ``digest`` last, so that a reader sees any change.

The digest is the sha256 of what the document is (the kind, which is the file's name, and the ids of its target and run)
and of its text, so that a document copied to another run is refused like one with a flipped bit. A document of format
1, from before there were digests, has neither key and is read unchecked.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lambda_hat.config.schema import Document

FORMAT = 2
_KEYS = ("format", "digest")
_FIRST_LINE = f"# format {FORMAT}, with a digest in the last line\n"
_LAST_KEY = ',\n "digest": '
_EPOCH = re.compile(r"^lease-\d+\.json$")
_ID = re.compile(r"(?:tgt|run_[a-z0-9_]+)_[0-9a-f]{12}")


class BrokenSeal(ValueError):
    """A document that is not what was written, and how that shows."""


def subject_of(path: Path) -> str:
    """What the document at ``path`` is: its name, and the ids of the target and the run in whose folder it lies.

    All leases of a folder have one name, because which epoch a lease is for is not known when it is written.
    """
    ids = [name for name in (path.parent.parent.name, path.parent.name) if _ID.fullmatch(name)]
    return " ".join([_EPOCH.sub("lease.json", path.name), *ids])


def sealed(document: Mapping[str, Any], subject: str) -> bytes:
    """``document`` as it is written: JSON types only, neither NaN nor infinities."""
    content = {key: value for key, value in document.items() if key not in _KEYS}
    text = json.dumps({"format": FORMAT, **content}, indent=1, allow_nan=False)
    return _with_digest(text.removesuffix("\n}"), subject).encode()


def unsealed(data: bytes, subject: str) -> Document:
    """The document without its seal.

    Raises:
        BrokenSeal: it is no JSON object, or not the document that was written for ``subject``.
    """
    try:
        text = data.decode()
        document = json.loads(text)
    except ValueError as error:
        raise BrokenSeal(f"it is truncated or damaged ({error})") from error
    if not isinstance(document, dict):
        raise BrokenSeal(f"it needs a JSON object, got {type(document).__name__}")
    found: Document = document
    if is_sealed(found):
        digest, version = found.pop("digest"), found.pop("format")
        if version != FORMAT:
            raise BrokenSeal(f"it needs the format {FORMAT}, got {version!r}: other code wrote it, or it is damaged")
        if _with_digest(text.rpartition(_LAST_KEY)[0], subject) != text:
            raise BrokenSeal(f"its digest {str(digest)[:12]} is not that of its content: it was changed or copied here")
    return found


def is_sealed(document: Document) -> bool:
    """Whether a document carries a seal; False for one of format 1.

    Raises:
        BrokenSeal: half of a seal is there, or what may have been a part of it.
    """
    has = [key in document for key in _KEYS]
    if all(has):
        return True
    near = next((key for key in document for known in _KEYS if key != known and _is_one_edit_away(key, known)), None)
    if near is not None:
        raise BrokenSeal(f"its key {near!r} may have been 'format' or 'digest': it is damaged")
    if any(has):
        raise BrokenSeal("it has one of 'format' and 'digest' without the other: it is damaged")
    return False


def is_unsealed(data: bytes) -> bool:
    """Whether a document that was read is of format 1, and so vouched for by nothing."""
    return not is_sealed(json.loads(data))


def sealed_yaml(text: str) -> str:
    """A YAML document with its digest in a comment: an id covers what is computed, but not how far (the budget).

    The first line says that there is a last one, which a document that was cut has lost.
    """
    return _with_last_line(_FIRST_LINE + text)


def check_yaml(text: str) -> None:
    """Check what :func:`sealed_yaml` made; a document without comments is from before, and unchecked.

    Raises:
        BrokenSeal: it was changed.
    """
    *_, last = text.splitlines(keepends=True) or [""]
    if last.startswith("#") and _with_last_line(text.removesuffix(last)) != text:
        raise BrokenSeal("its digest is not that of its content: it was changed")
    if text.startswith(_FIRST_LINE) and not last.startswith("#"):
        raise BrokenSeal("its last line, which holds its digest, is missing: it was cut")


def _with_last_line(text: str) -> str:
    return f"{text}# sha256 {hashlib.sha256(text.encode()).hexdigest()}\n"


def _with_digest(text: str, subject: str) -> str:
    """The whole document, of which ``text`` is all but the digest."""
    digest = hashlib.sha256(f"{subject}\n{text}".encode()).hexdigest()
    return f'{text}{_LAST_KEY}"{digest}"\n}}\n'


def _is_one_edit_away(word: str, known: str) -> bool:
    """Whether one character of ``known`` was replaced, lost or added."""
    shorter, longer = sorted((word, known), key=len)
    if len(longer) - len(shorter) > 1:
        return False
    same = next((at for at, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    return shorter[same + (len(shorter) == len(longer)) :] == longer[same + 1 :]
