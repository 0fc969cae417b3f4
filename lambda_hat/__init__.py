"""lambda_hat: the local learning coefficient of trained models, by many samplers, with errors one can trust."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambda_hat.results import load as load

__version__ = "0.1.0"  # pyproject.toml reads it here


def __getattr__(name: str) -> Any:
    """Import ``lambda_hat.load`` at its first use, because importing the package must stay fast."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lambda_hat.results import load

    return load
