"""Plots: where they put what they are given."""

import re

import pytest
from runs import Page

from fmnist.report import plots


def drawn(html: str, tag: str) -> list[list[tuple[float, float]]]:
    """The points of each polyline or circle, the legend's left out."""
    shapes = [attrs for found, attrs in Page(html).elements if found == tag]
    if tag == "circle":
        points = [[(float(str(shape["cx"])), float(str(shape["cy"])))] for shape in shapes]
    else:
        points = [
            [(float(x), float(y)) for x, y in (point.split(",") for point in str(shape["points"]).split())]
            for shape in shapes
        ]
    return [shape for shape in points if shape[0][1] != 5]


def test_chart_scales_to_its_values_and_leaves_out_what_is_missing() -> None:
    html = plots.curves("<Loss>", "epoch", [plots.Series("a", [1.0, None, 3.0]), plots.Series("b", [2.0])], mark=3)
    [[(x1, y1), (x2, y2)]] = drawn(html, "polyline")
    assert 0 < x1 < x2 < 480
    assert 0 < y2 < y1 < 270
    mark = next(attrs for _, attrs in Page(html).elements if attrs.get("class") == "mark")
    assert float(str(mark["x1"])) == x2
    # A value alone is still seen, halfway.
    [[(x3, y3)]] = drawn(html, "circle")
    assert x3 == x1
    assert y3 == pytest.approx((y1 + y2) / 2, abs=0.1)
    assert re.findall(r"text-anchor=end>([\d.]+)<", html) == ["1", "1.5", "2", "2.5", "3"]


def test_best_so_far_goes_in_steps() -> None:
    [points] = drawn(plots.curves("Score", "trial", [plots.Series("best", [1.0, 2.0, 2.0], "steps")]), "polyline")
    (_, y1), (x2, y2), (x3, y3), *_ = points
    assert x2 == x3
    assert y1 == y2 > y3


@pytest.mark.parametrize(
    ("values", "labels"),
    [((0.9005, 0.9018), ["0.9005", "0.901", "0.9015"]), ((12345, 12360), ["12345", "12350", "12355", "12360"])],
)
def test_close_values_have_ticks_that_say_what_they_are(values: tuple[float, float], labels: list[str]) -> None:
    assert [label for _, label in plots.Scale.over(values, 0, 400).ticks()] == labels


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0]])
def test_chart_of_a_constant(values: list[float]) -> None:
    assert "nan" not in plots.curves("Loss", "epoch", [plots.Series("a", values)])


def test_few_values_stand_at_equal_distances_in_their_order() -> None:
    parameter = plots.Parameter("units", ["512", "", "64", "128", "64"], 0, 400)
    assert parameter.ticks() == [(50, "–"), (150, "64"), (250, "128"), (350, "512")]
    assert parameter.pixels == [350, 50, 150, 250, 150]


def test_many_values_over_orders_of_magnitude_stand_on_a_log_scale() -> None:
    values = ["0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03", "0.1"]
    pixels = plots.Parameter("learning_rate", values, 0, 600).pixels
    decades = [pixels[2] - pixels[0], pixels[4] - pixels[2], pixels[6] - pixels[4]]
    assert decades == pytest.approx([decades[0]] * 3)
    linear = plots.Parameter("dropout", [f"0.{n}" for n in range(1, 9)], 0, 600).pixels
    assert linear[2] - linear[1] == pytest.approx(linear[7] - linear[6])


def test_parallel_coordinates_draw_the_best_last() -> None:
    html = plots.parallel_coordinates(
        [("units", ["64", "128", "64"]), ("<rate>", ["1", "2", "3"])],
        "score",
        [0.5, 0.9, 0.7],
        [0, 1, 0.5],
        ["a", "b", "c"],
    )
    assert re.findall(r"--share:([\d.]+)", html) == ["0.000", "0.500", "1.000"]
    assert re.findall(r"<title>(\w)</title>", html) == ["a", "c", "b"]
    assert "&lt;rate&gt;" in html
    lines = drawn(html, "polyline")
    assert [len(line) for line in lines] == [3, 3, 3]
    ends = [line[-1][1] for line in lines]
    assert ends[0] > ends[1] > ends[2]


def test_reliability_puts_perfect_calibration_on_the_diagonal() -> None:
    discs = drawn(plots.reliability("Accuracy", [(10, 0.25, 0.25), (1000, 0.75, 0.75)]), "circle")
    html = plots.reliability("Accuracy", [(10, 0.25, 0.25), (1000, 0.75, 0.75)])
    line = next(attrs for _, attrs in Page(html).elements if attrs.get("class") == "mark")
    x1, y1, x2, y2 = (float(str(line[name])) for name in ("x1", "y1", "x2", "y2"))
    for ((x, y),), share in zip(discs, (0.25, 0.75), strict=True):
        assert x == pytest.approx(x1 + share * (x2 - x1), abs=0.1)
        assert y == pytest.approx(y1 + share * (y2 - y1), abs=0.1)
    small, large = (float(radius) for radius in re.findall(r' r="([\d.]+)"', html))
    assert small < large


def test_intervals_hold_their_dot() -> None:
    html = plots.intervals("Accuracy", [plots.Interval("a", 0.9, 0.89, 0.91), plots.Interval("b", 0.8, 0.79, 0.81, 1)])
    found = re.findall(r"--low:([\d.]+)%;--at:([\d.]+)%;--high:([\d.]+)%", html)
    assert len(found) == 2
    for low, at, high in found:
        assert 0 < float(low) < float(at) < float(high) < 100
    assert "a: 0.9000, 0.8900 to 0.9100" in html


def test_a_legend_names_every_line_and_no_two_lines_look_alike() -> None:
    names = [f"a recipe of a long name, number {number}" for number in range(14)]
    html = plots.curves("Loss", "epoch", [plots.Series(name, [1.0 + number, 2.0]) for number, name in enumerate(names)])
    text = Page(html).text
    assert all(name in text for name in names)
    looks = [str(attrs["class"]) for tag, attrs in Page(html).elements if tag == "polyline"]
    # Once in the legend, once in the picture.
    assert sorted(looks) == sorted(2 * sorted(set(looks)))
    assert len(set(looks)) == len(names)


def test_a_dot_and_a_line_say_what_they_are() -> None:
    series = [
        plots.Series("", [1.0, None, 3.0], "dots", 0, ["first", "", "<third>"]),
        plots.Series("", [2.0, 2.0, 4.0], "line", 1, ["whole"]),
    ]
    titles = re.findall("<title>(.*?)</title>", plots.curves("Score", "trial", series))
    assert titles == ["first", "&lt;third&gt;", "whole"]
