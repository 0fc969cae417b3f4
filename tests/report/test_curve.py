"""A curve without JAX: its table, its files, its words, and pictures of awkward curves."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.text
import numpy as np
import pandas
import pytest

from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.report.curve import Curve, Point


def document(llc: float | None, mcse: float = 0.1, reliable: bool = True, **more: Any) -> Document:
    """As analysis.json has it, as far as a curve reads it."""
    interval = [None, None] if llc is None else [llc - 1.64 * mcse, llc + 1.64 * mcse]
    sampler = {"_target_": "lambda_hat.samplers.sgld.SGLD", "step_size": "auto"}
    return {
        "sampler": "sgld", "nbeta": 30.0, "gamma": 1.0, "num_data": 1000, "loss_at_w0": 0.25,
        "llc": llc, "llc_mcse": mcse, "llc_interval90": interval, "llc_variance": 2.0, "llc_variance_mcse": 0.3,
        "ess_bulk": 500.0, "ess_tail": 300.0, "rhat": 1.01, "target_report": {"gradient_norm": 0.5},
        "verdict": {"reliable": reliable, "reasons": [] if reliable else ["R-hat is 2", "ESS is 3"]},
        "tuned": {"step_size": 0.1}, "config": {"sampler": sampler, "seed": 0}, **more,
    }  # fmt: skip


def curve_of(llcs: Sequence[float | None], steps: Sequence[int], series: str = "", **more: Any) -> list[Point]:
    return [
        Point(step, f"ckpts/step_{step}.npz", document(llc, **more), {}, series)
        for llc, step in zip(llcs, steps, strict=True)
    ]


FAILED = Point(40, "ckpts/step_40.npz", {"error": "L_n(w0) needs to be finite, got nan"}, {"accuracy": math.nan})


def test_a_row_for_each_point_in_the_order_of_steps() -> None:
    shift = {"value": -1.5, "error": 0.01, "products": 7, "reason": None}
    points = [
        FAILED,
        Point(30, "c", document(3.0, shift={"value": None, "reason": "indefinite"}, reliable=False), {"accuracy": 0.5}),
        Point(10, "a", document(1.0, shift=shift), {"accuracy": 0.25}),
        Point(20, "b", document(2.0, shift=None), {}),
    ]
    table: Any = Curve(points).table
    assert table["step"].tolist() == [10, 20, 30, 40]
    assert table["llc"].tolist()[:3] == [1.0, 2.0, 3.0]
    assert table["llc_less_shift"].tolist()[0] == 2.5
    assert np.isnan(table["llc_less_shift"].to_numpy()[1:]).all(), "no shift, or none that is known"
    assert table["nbeta_ratio"][0] == pytest.approx(30 / (1000 / math.log(1000)))
    assert table["ess"][0] == 300.0
    assert table["reliable"].tolist() == [True, True, False, pandas.NA]
    assert table["reasons"].tolist() == ["", "", "R-hat is 2; ESS is 3", FAILED.document["error"]]
    assert table[table["reliable"]]["step"].tolist() == [10, 20], "it selects, though a value is missing"
    assert {name: str(kind) for name, kind in table.dtypes.items() if str(kind) != "float64"} == {
        "series": "string", "step": "int64", "checkpoint": "string", "sampler": "string", "n": "Int64",
        "reliable": "boolean", "reasons": "string", "settings": "string",
    }  # fmt: skip
    assert "llc_self" not in table


def test_another_quantity_has_a_column_of_its_own() -> None:
    own = curve_of([4.0], [1], quantity="llc_self")
    assert {"llc", "llc_self"}.intersection(Curve(own).table) == {"llc_self"}
    assert not [axes for axes in Curve(own).plot().axes if "L_n" in axes.get_ylabel()], "it is 0 everywhere"
    both = Curve([*own, *curve_of([9.0], [1])]).table
    assert both[["llc", "llc_self"]].sum().tolist() == [9.0, 4.0]


def test_the_table_says_who_chose_the_settings() -> None:
    held = {"sampler": {"_target_": "a.SGLD", "step_size": 0.1}}
    rounded = {"step_size": float(np.float32(0.1))}
    points = [*curve_of([1.0], [1]), *curve_of([1.0], [2], config=held, tuned=rounded), *curve_of([1.0], [3], tuned={})]
    assert Curve(points).table["settings"].tolist() == ["tuned each", "held", "held"]


def test_a_metric_with_the_name_of_a_column_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"metrics: llc, rhat: the table has such a column already"):
        Curve([Point(1, "", document(1.0), {"rhat": 1.0, "llc": 2.0, "accuracy": 1.0})])


def test_equal_points_give_equal_files(tmp_path: Path) -> None:
    points = [*curve_of([1.0, -2.0, None], [10, 20, 30], target_id="tgt_1", run_id="run_1"), FAILED]
    Curve(points).write(tmp_path / "one")
    Curve(reversed(points)).write(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["curve.png", "table.csv", "table.parquet"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    kept = pandas.read_parquet(tmp_path / "one" / "table.parquet")
    pandas.testing.assert_frame_equal(kept, Curve(points).table)
    text = (tmp_path / "one" / "table.csv").read_text().splitlines()
    assert text[0].startswith("series,step,checkpoint,sampler,nbeta,")
    assert len(text) == 5
    assert text[0].endswith("target_id,run_id")


def test_words_and_markup() -> None:
    curve = Curve([*curve_of([1.0, 2.0], [1, 2], reliable=False), *curve_of([3.0], [3]), FAILED])
    heading = "4 checkpoints, steps 1 to 40: 1 reliable, 2 refused by the verdict, 1 without a result"
    assert repr(curve).splitlines()[0] == heading
    assert len(curve) == 4
    hostile = Curve([FAILED._replace(document={"error": "<script>alert(1)</script>"}), *curve_of([1.0], [1])])
    assert "<script>" not in hostile._repr_html_()
    assert repr(Curve([])) == "a curve without points"


def limits(curve: Curve, panel: int = 0) -> tuple[float, float]:
    return curve.plot().axes[panel].get_ylim()


def labels(curve: Curve) -> set[str]:
    return {str(label) for axes in curve.plot().axes for label in axes.get_legend_handles_labels()[1]}


def test_an_outlier_does_not_flatten_the_rest_and_is_told() -> None:
    curve = Curve(curve_of([1.0, 1.5, 1e6, 2.0, -3.0], [1, 2, 3, 4, 5], reliable=False))
    low, high = limits(curve)
    assert -6 < low < -3, "what is negative is shown as it is"
    assert 2 < high < 6
    assert "1e+06" in {text.get_text() for text in curve.plot().findobj(matplotlib.text.Text)}


def test_a_stage_reached_by_the_last_two_of_thirty_is_no_outlier() -> None:
    values = [1 + 0.1 * (place % 3) for place in range(28)] + [6.0, 6.1]
    assert limits(Curve(curve_of(values, range(30))))[1] > 6.1


@pytest.mark.parametrize(("steps", "scale"), [
    (range(100, 900, 100), "linear"), ([1, 10, 1000], "log"), ([0, 1, 10, 1000], "symlog"), ([7], "linear"),
])  # fmt: skip
def test_the_axis_of_steps(steps: Sequence[int], scale: str) -> None:
    curve = Curve(curve_of([1.0] * len(steps), steps))
    assert curve.plot().axes[0].get_xscale() == scale


def test_the_llc_without_its_shift_is_drawn_where_it_differs() -> None:
    points = curve_of([-4.0, 1.0, 2.0], [1, 2, 3], shift={"value": -5.0})
    points[1] = points[1]._replace(document=document(1.0, shift={"value": -0.01}))
    axes = Curve(points).plot().axes[0]
    (marks,) = [line for line in axes.lines if line.get_label() == "less its shift"]
    assert np.asarray(marks.get_ydata()).tolist()[::2] == [1.0, 7.0]
    assert axes.get_ylim()[1] > 7.0


def test_lines_are_named_by_what_differs() -> None:
    seeds = [point for seed in (0, 1) for point in curve_of([1.0, 2.0], [1, 2], f"mlp/seed={seed}/width=64")]
    assert {"seed=0", "seed=1", "mean and range of 2 series"} <= labels(Curve(seeds))
    configs: list[Any] = [{"sampler": {"_target_": "a.SGLD"}}, {"sampler": {"_target_": "a.HMC"}}]
    two = [point for config in configs for point in curve_of([1.0, 2.0], [1, 2], config=config)]
    assert {"sampler=SGLD", "sampler=HMC"} <= labels(Curve(two))


def test_the_mean_of_series_has_a_gap_where_one_is_refused() -> None:
    points = [point for name in "ab" for point in curve_of([1.0, 2.0, 3.0], [1, 2, 3], name)]
    points[1] = points[1]._replace(document=document(2.0, reliable=False))
    axes = Curve(points).plot().axes[0]
    (mean,) = [line for line in axes.lines if str(line.get_label()).startswith("mean")]
    assert np.isfinite(mean.get_ydata()).tolist() == [True, False, True]


@pytest.mark.parametrize("values", [
    [], [1.0], [None], [None, None, 2.0], [0.0, 0.0, 0.0], [-1e-9, 1e300, 5.0], [-5.0, -6.0, -7.0],
])  # fmt: skip
def test_a_picture_of_whatever_there_is(values: list[float | None], tmp_path: Path) -> None:
    """Few points, none, none with a value, equal ones, only negative ones; also narrow. A warning is an error."""
    points = curve_of(values, range(len(values)))
    figure = Curve([*points, FAILED]).plot()
    for size in ((8.4, 5.0), (2.6, 3.0)):
        figure.set_size_inches(*size)
        figure.savefig(tmp_path / "curve.png", dpi=30)


def test_change_points_are_drawn_where_they_are() -> None:
    curve = Curve(curve_of([1.0, 1.1, 0.9, 1.0, 5.0, 5.1, 4.9, 5.0], [10, 20, 30, 40, 1000, 2000, 3000, 4000]))
    (point,) = curve.change_points[""].points
    assert (point.low, point.before, point.after, point.high) == (40, 40, 1000, 1000)
    (line,) = [line for line in curve.plot().axes[0].lines if str(line.get_label()).startswith("change point")]
    assert np.asarray(line.get_xdata())[0] == pytest.approx(200), "midway on a logarithmic axis"
