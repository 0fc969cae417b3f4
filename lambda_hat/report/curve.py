"""The curve of an LLC over the checkpoints of a training: its table, its picture, and both as files. No JAX."""

import html
import io
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_hat.config.schema import ConfigError
from lambda_hat.estimation.change_points import ChangePoints
from lambda_hat.report.curve_table import COLUMNS, QUANTITIES, Point, changes, counted, lines, table_of
from lambda_hat.store.files import atomic_path, write_bytes

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = ["Curve", "Point"]

# Rows of a table that a notebook shows.
_MOST_ROWS = 60


class Curve:
    """An LLC over the steps of one training, or of several (*series*).

    Args:
        points: In any order. Two of one series and step are runs of other settings, which are drawn as other lines.

    Raises:
        ConfigError: a metric has the name of a column.
    """

    def __init__(self, points: Iterable[Point]):
        self.points = tuple(sorted(points, key=lambda point: (point.series, point.step, point.path)))
        refuse_taken({name for point in self.points for name in point.metrics})

    @cached_property
    def table(self) -> "pandas.DataFrame":
        """A row a point: ``series``, ``step``, ``checkpoint``, and

        - ``sampler``, ``nbeta``, ``gamma``, ``n``, and ``nbeta_ratio``, which is nbeta / (n / log n);
        - ``loss_at_w0`` and the metrics of one's own;
        - ``llc`` (E1), or ``llc_self`` or ``control`` where the run estimated that instead; its ``llc_mcse``, and its
          90 % interval from ``lower90`` to ``upper90``; ``llc_variance`` (E3) and its ``llc_variance_mcse``;
        - ``shift``: what the gradient at w0 does to the LLC; ``llc_less_shift``: the LLC without it;
        - ``ess``, ``rhat``, ``gradient_norm`` at w0, ``reliable``, and the verdict's ``reasons``;
        - ``settings``: ``held`` where the sampler had the settings that it was given, ``tuned each`` where its warm-up
          chose them for each checkpoint;
        - ``target_id`` and ``run_id`` in a store.

        What a point does not have is NaN or missing. A checkpoint without a result says why in ``reasons``.
        """
        return table_of(self.points)

    @cached_property
    def change_points(self) -> dict[str, ChangePoints]:
        """Where the LLC steps from one level to another, for each line of the picture by its label.

        Of the reliable points alone: see :mod:`lambda_hat.estimation.change_points`.
        """
        found = [(line, quantity) for line in lines(self.points) for quantity in line.quantities]
        return {line.label: changes(line, quantity) for line, quantity in found}

    def plot(self) -> "Figure":
        """The LLC with its 90 % band over the training step, above the loss and one's own metrics.

        Points that the verdict refuses are hollow. Change points are vertical lines, their 90 % intervals shaded. Save
        it by ``.savefig(path)``.
        """
        from lambda_hat.report.plot_curve import plot_curve

        return plot_curve(self.points)

    def write(self, folder: Path) -> None:
        """``table.parquet``, ``table.csv`` and ``curve.png`` in ``folder``, each whole or as it was before.

        The same points give the same bytes.

        Raises:
            lambda_hat.store.files.StoreError: a file cannot be written.
        """
        import pyarrow
        from pyarrow import parquet

        image = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pandas(self.table, preserve_index=False), image, compression="zstd")
        write_bytes(folder / "table.parquet", image.getvalue())
        write_bytes(folder / "table.csv", self.table.to_csv(index=False, lineterminator="\n").encode())
        with atomic_path(folder / "curve.png") as temporary:
            self.plot().savefig(temporary, format="png")

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        return f"{self._heading()}\n{self._shown().to_string(max_rows=_MOST_ROWS)}" if self.points else self._heading()

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._heading())}</p>{self._shown().to_html(max_rows=_MOST_ROWS)}"

    def _heading(self) -> str:
        """How many points of which kind, and their steps."""
        if not self.points:
            return "a curve without points"
        steps = [point.step for point in self.points]
        names = {point.series for point in self.points}
        series = f" in {len(names)} series" if len(names) > 1 else ""
        size = f"{len(steps)} checkpoint{'s' if len(steps) > 1 else ''}{series}"
        return f"{size}, steps {min(steps):,} to {max(steps):,}: {counted(self.points)}"

    def _shown(self) -> "pandas.DataFrame":
        """The columns that tell something: not those that are empty, or the same in every row."""
        always = {"step", *QUANTITIES, "llc_mcse", "reliable"}
        return self.table.loc[
            :, [name in always or len(set(kept.astype(str))) > 1 for name, kept in self.table.items()]
        ]


def refuse_taken(metrics: Iterable[str]) -> None:
    """
    Raises:
        ConfigError: a metric has the name of a column.
    """
    taken = sorted(COLUMNS.intersection(metrics))
    if taken:
        raise ConfigError([f"metrics: {', '.join(taken)}: the table has such a column already; choose another name"])
