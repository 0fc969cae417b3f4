"""Estimates of a sweep against nbeta: E1, E2 and E3 of each target and sampler, and the asymptotic lambda.

It writes ``temperatures.json`` and ``temperatures.png`` beside the sweep's manifest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lambda_hat.config.job import digest, identity_of
from lambda_hat.config.schema import Document, Node
from lambda_hat.estimation.quantity import name_of
from lambda_hat.estimation.temperatures import MIN_TEMPERATURES, Asymptotics, Pair, Point, fit, pairs
from lambda_hat.launch.sweep import Sweep
from lambda_hat.store.layout import write_json

SCHEMA = 1


@dataclass
class Curve:
    """The runs of one target with one sampler and posterior, at several nbeta.

    Args:
        label: Its name.
        analyses: The analysis.json of each run, by rising nbeta.
    """

    label: str
    analyses: list[Document] = field(default_factory=list)

    @property
    def gamma(self) -> float:
        return self.analyses[0]["gamma"]

    @property
    def known(self) -> tuple[float, int] | None:
        """lambda and m if the model knows them."""
        value, multiplicity = self.analyses[0]["known_lambda"], self.analyses[0]["known_multiplicity"]
        return None if value is None else (value, multiplicity)

    @property
    def points(self) -> list[Point]:
        """The runs that have E1, E3 and their errors."""
        found = (_point(analysis) for analysis in self.analyses)
        return [point for point in found if point is not None]

    @property
    def pairs(self) -> list[Pair]:
        return pairs(self.points)

    @property
    def doubted(self) -> list[str]:
        """Ids of the unreliable runs."""
        return [analysis["run_id"] for analysis in self.analyses if not analysis["verdict"]["reliable"]]

    @property
    def asymptotics(self) -> Asymptotics | None:
        """The fit; None with fewer than four temperatures."""
        if len({point.nbeta for point in self.points}) < MIN_TEMPERATURES:
            return None
        return fit(
            self.points,
            self.gamma,
            self.analyses[0]["dim"],
            _least_curvature(self.analyses[0].get("target_report", {})),
        )

    def notes(self, found: Asymptotics | None) -> Iterator[str]:
        """Notes on the numbers."""
        if found is None:
            count = len({point.nbeta for point in self.points})
            yield (
                f"no lambda: a fit needs {MIN_TEMPERATURES} values of posterior.nbeta with results, got {count}; "
                f"E2 and E3 are all that fewer tell"
            )
        else:
            yield from (f"unreliable: {reason}" for reason in found.reasons)
            dropped = sorted({point.nbeta for point in self.points} - set(found.nbetas))
            if dropped:
                yield f"the fit leaves out nbeta = {', '.join(f'{nbeta:.4g}' for nbeta in dropped)}: not asymptotic yet"
        if self.doubted:
            others = f" and {len(self.doubted) - 1} more" if len(self.doubted) > 1 else ""
            yield f"its runs are not all reliable: {self.doubted[0]}{others}; lambda is no better than they are"

    def to_dict(self) -> Document:
        found = self.asymptotics
        return {
            "label": self.label,
            "quantity": self.analyses[0].get("quantity") or "llc",
            "target_id": self.analyses[0]["target_id"],
            "sampler": self.analyses[0]["sampler"],
            "gamma": self.gamma,
            "known_lambda": self.analyses[0]["known_lambda"],
            "known_multiplicity": self.analyses[0]["known_multiplicity"],
            "runs": [analysis["run_id"] for analysis in self.analyses],
            "points": [point._asdict() for point in self.points],
            "pairs": [{name: _plain(value) for name, value in pair._asdict().items()} for pair in self.pairs],
            "asymptotics": None if found is None else found.to_dict(),
            "notes": list(self.notes(found)),
        }


def curves(sweep: Sweep) -> list[Curve]:
    """The curves of the sweep, from the runs that have a result; each seed adds a point to its curve."""
    runs = sweep.manifest().runs
    found: dict[tuple[str, str, str], list[Document]] = {}
    for run_id, run in runs.items():
        analysis = sweep.store.read_analysis(run.target, run_id)
        if analysis is not None:
            config = analysis["config"]
            how = digest("sampler", {"sampler": config["sampler"], "num_chains": config["num_chains"]})
            posterior = {**identity_of("posterior", config["posterior"]), "beta": None, "nbeta": None}
            found.setdefault((run.target, how, digest("posterior", posterior)), []).append(analysis)
    plain = [(_label(analyses[0]), how, analyses) for (_, how, _), analyses in found.items()]
    labels = [label for label, _, _ in plain]
    return [
        Curve(
            label if labels.count(label) == 1 else f"{label} ({analyses[0]['target_id']}, sampler {how[:6]})",
            sorted(analyses, key=lambda analysis: analysis["nbeta"]),
        )
        for label, how, analyses in plain
    ]


def publish(sweep: Sweep, found: Sequence[Curve]) -> tuple[Path, Path]:
    """Write temperatures.json and temperatures.png into the sweep's folder."""
    from lambda_hat.report.plot_scans import draw_temperatures  # matplotlib

    document, picture = (sweep.directory / f"temperatures.{kind}" for kind in ("json", "png"))
    written = [curve.to_dict() for curve in found]
    write_json(document, {"schema": SCHEMA, "sweep": sweep.name, "curves": written})
    draw_temperatures(written, picture)
    return document, picture


def _label(analysis: Document) -> str:
    model = str(analysis["config"]["model"]["_target_"]).rpartition(".")[2]
    of = "" if name_of(analysis) == "LLC" else f" {name_of(analysis)}"
    return f"{model} {analysis['sampler']} gamma={analysis['gamma']:g}{of}"


def _point(analysis: Document) -> Point | None:
    names = ("nbeta", "llc", "llc_mcse", "llc_variance", "llc_variance_mcse", "e1_minus_e3", "e1_minus_e3_mcse")
    values = [analysis[name] for name in names]
    return None if None in values else Point(*values)


def _least_curvature(report: Node) -> float | None:
    """The least eigenvalue of the Hessian above 0, if known; older reports hold the least of all only."""
    if report.get("hessian_least_positive") is not None:
        return report["hessian_least_positive"]
    least = report.get("hessian_min")
    return least if report.get("is_whole_spectrum", True) and least is not None and least > 0 else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, float) else value._asdict()
