"""Where the host loop keeps what it has done: in a run's folder, or in memory."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import PyTree

from lambda_hat.estimation.trace import COLUMNS
from lambda_hat.run.accounting import Ledger, TracePhase


class Kept(NamedTuple):
    """What a sink brings back: the sampler's state, and the account that belongs to it."""

    state: PyTree
    ledger: Ledger


@runtime_checkable
class Sink(Protocol):
    """What the host loop needs of it. After each chunk the trace is added first; the commit then makes it count.

    ``name``      what a sentence calls the run.
    ``load``      the last commit, or None; ``template`` gives the state's shapes and dtypes.
    ``compiled``  called when a program has just been compiled.
    ``add``       keeps a chunk's trace, arrays (draw, chain) that begin at the ledger's step.
    ``commit``    keeps the state after that chunk; the ledger counts the chunk already.
    ``trace``     all steps of a phase so far, as arrays (chain, step); empty where there are none.
    ``status``    what the loop is doing.
    """

    @property
    def name(self) -> str: ...
    def load(self, template: Callable[[], PyTree], /) -> Kept | None: ...
    def compiled(self) -> None: ...
    def add(self, ledger: Ledger, arrays: dict[str, np.ndarray], /) -> None: ...
    def commit(self, ledger: Ledger, state: PyTree, /) -> None: ...
    def trace(self, ledger: Ledger, phase: TracePhase, /) -> dict[str, np.ndarray]: ...
    def status(self, ledger: Ledger, state: str, /, **more: Any) -> None: ...


class Memory:
    """Keeps the trace as arrays of this process, and nothing else.

    Args:
        name: What a sentence calls the run.
    """

    def __init__(self, name: str):
        self.name = name
        self._chunks: defaultdict[TracePhase, list[dict[str, np.ndarray]]] = defaultdict(list)

    def load(self, template: Callable[[], PyTree], /) -> None:
        del template

    def compiled(self) -> None:
        pass

    def add(self, ledger: Ledger, arrays: dict[str, np.ndarray], /) -> None:
        self._chunks[ledger.phase].append(arrays)

    def commit(self, ledger: Ledger, state: PyTree, /) -> None:
        del ledger, state

    def trace(self, ledger: Ledger, phase: TracePhase, /) -> dict[str, np.ndarray]:
        del ledger
        chunks = self._chunks[phase]
        names = chunks[0] if chunks else ()
        return joined([{name: np.concatenate([chunk[name] for chunk in chunks]).T for name in names}] if names else [])

    def status(self, ledger: Ledger, state: str, /, **more: Any) -> None:
        del ledger, state, more


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Stretches of a trace, arrays (chain, step), one after another."""
    if not parts:
        return {}
    # What was begun before a column was added goes on without it.
    names = [name for name in parts[0] if all(name in part for part in parts)]
    # Chunks are kept by draw. The order in memory is that of the sums over it, and so of their last bits.
    return {name: np.ascontiguousarray(np.concatenate([part[name] for part in parts], axis=1)) for name in names}


def with_columns(
    sampling: dict[str, np.ndarray], warmup: dict[str, np.ndarray], num_chains: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Both traces; a phase without steps gets its columns, of no length.

    A run whose initialisation alone has spent the budget has not even warm-up's.
    """
    nothing = {name: np.zeros((num_chains, 0)) for name in COLUMNS}
    columns = {name: column[:, :0] for name, column in (sampling or warmup or nothing).items()}
    return sampling or columns, warmup or columns
