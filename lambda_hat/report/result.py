"""The result of an estimate in memory: its numbers, in words, as a table, as a trace and as a picture."""

import dataclasses
import html
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from lambda_hat.config.schema import Document, PosteriorConfig
from lambda_hat.estimation.estimate import Estimate, Setting
from lambda_hat.estimation.quantity import name_of
from lambda_hat.estimation.trace import Trace, WarmupTrace
from lambda_hat.run.summary import duration, in_usual, llc_lines, remarks, total_seconds, verdict_lines, w0_in_words
from lambda_hat.store.trace_file import trace_image

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Result(Estimate):
    """Every number of an :class:`lambda_hat.estimation.estimate.Estimate`, its verdict, and the draws behind them.

    Args:
        draws: Columns of the sampling phase, arrays (chain, draw).
        warmup: The same of warm-up.
        setting: What was sampled: nbeta, gamma, d, n, L_n(w0).
        document: All of it in JSON types.
    """

    draws: Trace
    warmup: WarmupTrace
    setting: Setting
    document: Document

    @classmethod
    def of(cls, found: Estimate, draws: Trace, warmup: WarmupTrace, setting: Setting, document: Document) -> Self:
        """The result of this estimate, with what it was made from."""
        numbers = {f.name: getattr(found, f.name) for f in dataclasses.fields(Estimate)}
        return cls(**numbers, draws=draws, warmup=warmup, setting=setting, document=document)

    @property
    def interval90(self) -> tuple[float, float]:
        """The LLC's 90 % interval."""
        return self.llc_interval90

    @property
    def ess(self) -> float:
        """The smaller of the bulk and the tail ESS, which is the one that the verdict looks at."""
        return min(self.ess_bulk, self.ess_tail)

    @cached_property
    def trace(self) -> "xarray.DataTree":
        """The draws as ArviZ lays them out: ``trace["posterior/llc"]`` over (chain, draw);
        ``posterior/llc_self`` where that is estimated."""
        import xarray

        attributes = {"lambda_hat_version": self.document["provenance"]["versions"]["lambda-hat"]}
        image = trace_image(self.draws, self.warmup, self.setting, attributes)
        with xarray.open_datatree(image, engine="h5netcdf") as tree:
            return tree.load()

    def plot(self) -> "Figure":
        """The draws of every chain, and the running LLC with its 90 % band. Save it by ``.savefig(path)``."""
        from lambda_hat.report.plot_result import plot_result

        return plot_result(self.draws, self.warmup, self.document)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, the verdict, the settings, the cost and the provenance in JSON types, as in analysis.json."""
        return self.document

    def __repr__(self) -> str:
        return "\n".join(f"{label:<9} {line}" for label, line in self._rows())

    def _repr_html_(self) -> str:
        cells = [(html.escape(label), html.escape(line)) for label, line in self._rows()]
        style = "text-align:left;vertical-align:top"
        rows = "".join(
            f'<tr><th style="{style}">{label}</th><td style="{style}">{line}</td></tr>' for label, line in cells
        )
        return f"<table>{rows}</table>"

    def _rows(self) -> list[tuple[str, str]]:
        """The result in words: a label and a line each."""
        report, name = self.document["target_report"], name_of(self.document)
        parts = {
            name: [line.removeprefix(f"{name} ") for line in llc_lines(self.document)],
            "verdict": [*verdict_lines(self.document), *remarks(self.document)],
            "posterior": [self._posterior()],
            "draws": [self._draws()],
            "w0": [w0_in_words(report), *report.get("notes", [])],
        }
        return [
            (label if index == 0 else "", line) for label, lines in parts.items() for index, line in enumerate(lines)
        ]

    def _posterior(self) -> str:
        setting, asked = self.setting, self.document["config"]["posterior"]
        of = "" if setting.report["has_rows"] else " (of a population)"
        usual = in_usual(setting.nbeta, setting.num_data)
        nbeta = usual if asked["nbeta"] is None else f"as set: {usual}"
        gamma = "the default" if asked["gamma"] == PosteriorConfig().gamma else "as set"
        return (
            f"n = {setting.num_data:,}{of}, nbeta = {setting.nbeta:.4g} ({nbeta}), gamma = {setting.gamma:g} ({gamma})"
            + ("" if asked["restrict"] is None else f", free: {', '.join(asked['restrict'])}")
            + ("" if asked["self"] is None else f", labels: the outputs at w0 ({asked['self']})")
        )

    def _draws(self) -> str:
        sampler = self.document["sampler"], self.document["config"]["sampler"]["dtype"]
        return (
            f"{self.num_chains} chains x {self.num_draws:,} draws by {sampler[0]} in {sampler[1]}, "
            f"d = {self.setting.dim:,}, {duration(total_seconds(self.document))}"
        )
