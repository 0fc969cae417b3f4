"""Bash completion of ``python -m lambda_hat.sample``: Hydra's own knows ``python file.py`` and commands only."""

import os
import re
import sys
from collections.abc import Sequence

_SCRIPT = """\
_lambda_hat_complete() {
    local words=($COMP_LINE)
    if [[ "${words[1]}" == "-m" && "${words[2]}" == lambda_hat.* ]]; then
        local choices=$("${words[0]}" -m "${words[2]}" -sc query=bash 2>/dev/null)
        COMPREPLY=($(compgen -o nospace -W "$choices" -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _lambda_hat_complete python python3
"""


def complete(arguments: Sequence[str]) -> bool:
    """Print the script for ``-sc install=bash`` and return True, or make ``-sc query=bash`` understand the line."""
    if not {"-sc", "--shell-completion"} & set(arguments):
        return False
    if "install=bash" in arguments:
        sys.stdout.write(_SCRIPT)
        return True
    line = os.environ.get("COMP_LINE")
    if line is not None:
        os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+)\s+-m\s+(\S+)", r"\2", line)
    return False
