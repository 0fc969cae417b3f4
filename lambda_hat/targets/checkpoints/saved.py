"""Where a problem's w0 was saved, as a planned run names it: one checkpoint, and how it is read."""

from dataclasses import field

from pydantic.dataclasses import dataclass

from lambda_hat.config.schema import STRICT, NonNegativeInt
from lambda_hat.config.user_module import search_last
from lambda_hat.targets.checkpoints.listing import Checkpoint, checkpoint_at


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Saved:
    """A checkpoint of the training of a problem.

    Args:
        path: Of the file or folder, absolute.
        step: Of the training.
        load: The dotted path of the user's reader; None: by the file's ending.
        folder: Where the reader's module may be.
        rename: Regexes of whole names in the file, and what these become; None leaves an array out.
        transpose: Regexes of whole names of parameters that the file has transposed.
    """

    path: str
    step: NonNegativeInt
    load: str | None = None
    folder: str | None = None
    rename: dict[str, str | None] = field(default_factory=dict[str, str | None])
    transpose: tuple[str, ...] = ()

    def checkpoint(self) -> Checkpoint:
        """It, not yet read.

        Raises:
            CheckpointError: it is gone, or of no known format.
        """
        if self.folder is not None:
            search_last(self.folder)
        return checkpoint_at(self.path, self.step, self.load, self.rename, self.transpose)
