"""lambda_hat: the local learning coefficient of trained models, by many samplers, with errors one can trust."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambda_hat.results import load as load


def __getattr__(name: str) -> Any:
    """``lambda_hat.load``, imported when it is asked for: importing the package must stay quick."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lambda_hat.results import load

    return load
