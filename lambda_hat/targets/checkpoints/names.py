"""Names of arrays in one form, so that those of two libraries can be compared."""

import re

from lambda_hat.targets.checkpoints.arrays import Name

# The parts of a path as jax.tree_util.keystr writes it: ['a'], [0], .a
_KEYSTR = re.compile(r"\['([^']*)'\]|\[\"([^\"]*)\"\]|\[(\d+)\]|\.([A-Za-z_]\w*)")
# What Flax NNX puts at the end of every path.
_VALUE = "value"


def normal(name: Name) -> Name:
    """A name in its normal form, cut at each ``/`` and ``.``.

    ``("layer.0.weight",)`` of torch, ``("layer/0/weight",)``, ``("['layer'][0]['weight']",)`` and
    ``("layer", "0", "weight", "value")`` of NNX are one name.
    """
    pieces = [piece for part in name for key in _keys(part) for piece in re.split(r"[/.]", key) if piece]
    return tuple(pieces[:-1] if len(pieces) > 1 and pieces[-1] == _VALUE else pieces)


def shown(name: Name) -> str:
    return "/".join(name) or "the root"


def _keys(part: str) -> list[str]:
    matches = list(_KEYSTR.finditer(part))
    is_keystr = "[" in part and "".join(match[0] for match in matches) == part
    return ["".join(filter(None, match.groups())) for match in matches] if is_keystr else [part]
