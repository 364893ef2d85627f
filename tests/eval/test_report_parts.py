"""Fronts, short names, and places of names and sizes."""

import itertools

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.against import Against
from codellm_eval.bench.records.folder import Folder
from codellm_eval.report import canvas, curves
from codellm_eval.report.curves import spread
from codellm_eval.report.front import Cost, pareto_front
from codellm_eval.report.labels import Label, arrange
from codellm_eval.report.measure import Interval, quality
from codellm_eval.report.names import LONGEST, short_names
from codellm_eval.report.pictures import subtitle
from codellm_eval.stats import paired
from codellm_eval.stats.differences import Difference
from support import recorded

COSTS = st.lists(st.builds(Cost, st.integers(0, 5), st.integers(0, 5)), max_size=12)
SPOTS = st.lists(st.tuples(st.floats(40, 460), st.floats(40, 260), st.floats(10, 90)), min_size=1, max_size=8)


@given(COSTS)
def test_nobody_beats_the_front_and_it_beats_the_rest(costs):
    front = pareto_front(costs)
    best = [costs[number] for number in front]
    assert not any(other.beats(cost) for cost in best for other in costs)
    for number, cost in enumerate(costs):
        assert number in front or any(other.beats(cost) for other in best)
    assert [cost.x for cost in best] == sorted(cost.x for cost in best)


def test_equal_costs_are_all_on_the_front():
    assert pareto_front([Cost(1, 2), Cost(1, 2), Cost(2, 2), Cost(0, 3)]) == [3, 0, 1]


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.05), (0.04, 0.05), (0.01, 0.02)])
def test_the_reach_of_quality_is_that_of_the_difference(low, high):
    bits = Difference(value=0.03, units=10, interval=paired.Interval(low, high))
    against = Against(reference=Row.parse("llama-cpp:f16"), bits=bits, canonical=None, solved=None)
    found = quality().of(recorded.row("llama-cpp:q4_0", bits_per_byte=0.73, against=against))
    assert found.middle == 0.73
    assert found.low == pytest.approx(min(0.73, 0.7 + low))
    assert found.high == pytest.approx(max(0.73, 0.7 + high))
    alone = quality().of(recorded.row("llama-cpp:q4_0", bits_per_byte=0.73))
    assert (alone.low, alone.middle, alone.high) == (0.73, 0.73, 0.73)


def rows(*texts):
    return [Row.parse(text) for text in texts]


def test_names_leave_the_backend_to_the_colour():
    assert short_names(rows("llama-cpp:q8_0", "torch-cpu", "torch-cpu::dtype=float32")) == [
        "q8_0", "torch-cpu", "dtype=float32",
    ]  # fmt: skip


@given(st.lists(st.sampled_from("abcd").map(lambda letter: f"llama-cpp:q8_0:path=/a{letter}{'x' * 60}/y"), min_size=1))
def test_names_of_one_backend_are_short_and_differ(texts):
    names = short_names(rows(*texts))
    assert len(set(names)) == len(names)
    assert all(len(name) <= LONGEST + 2 for name in names)


def boxes(labels, places):
    return [
        (where.left, where.bottom, where.left + label.width, where.bottom + label.height)
        for label, where in zip(labels, places, strict=True)
    ]


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@given(SPOTS)
def test_names_cover_each_other_only_where_that_is_told(spots):
    labels = [Label(x=x, y=y, width=width, height=11) for x, y, width in spots]
    places = arrange(labels, (0, 0, 500, 300))
    for (one, a), (other, b) in itertools.combinations(zip(places, boxes(labels, places), strict=True), 2):
        assert not overlap(a, b) or (one.hidden and other.hidden)


def test_names_have_room_where_there_is_some():
    labels = [Label(x=250, y=150, width=60, height=11) for _ in range(10)]  # all at one point
    places = arrange(labels, (0, 0, 500, 300))
    assert not any(found.hidden for found in places)
    for left, bottom, right, top in boxes(labels, places):
        assert left >= 0
        assert bottom >= 0
        assert right <= 500
        assert top <= 300
    assert any(found.leader for found in places)


@example([278.0, 293.0], 15.0)
@given(st.lists(st.floats(0, 300), max_size=20), st.floats(1, 15))
def test_names_at_the_ends_of_lines_stand_apart_and_in_order(wanted, height):
    places = spread(wanted, height, 0, 300)
    for here, there in itertools.combinations(sorted(zip(wanted, places, strict=True)), 2):
        assert there[1] - here[1] >= height * (1 - 1e-6) or here[0] == there[0]
    for here, there in itertools.pairwise(sorted(places)):
        assert there - here >= height * (1 - 1e-6)
    assert all(height / 2 - 1e-6 <= place <= 300 - height / 2 + 1e-6 for place in places)


def test_names_with_room_stand_where_they_want():
    assert spread([100, 200], 10, 0, 300) == [100, 200]
    assert spread([100, 104], 10, 0, 300) == [97, 107]
    assert spread([0, 0], 200, 0, 300) == [75, 225]


def test_neighbouring_sizes_do_not_touch():
    points = [(size, Interval(1.0, 1.0, 1.0)) for size in (128, 1024, 4032, 8192)]
    both = rows("llama-cpp:q4_k_m", "torch-cpu::dtype=bfloat16,mode=compile,context_length=8448")
    with canvas.style():
        figure = curves.draw([curves.Curve(row, points) for row in both], "tokens", "ms", "Time", "of nothing")
        boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(before.x1 + curves.GAP / 2 <= after.x0 for before, after in itertools.pairwise(boxes))


@pytest.mark.parametrize(("device", "where"), [("cpu", "AMD EPYC"), ("cuda", "NVIDIA H200")])
def test_a_picture_says_what_computed(device, where, tmp_path):
    record = recorded.row("llama-cpp:q4_0")
    record = attrs.evolve(record, info=attrs.evolve(record.info, device=device, threads=None))
    folder = recorded.write(tmp_path / "made", [record], cpu="AMD EPYC", gpus=["NVIDIA H200"])
    assert f" on {where}, " in subtitle(Folder.read(folder))
