"""Tables and notes of records."""

import json
import math

import attrs

from codellm_eval.bench.ask.job import QualityPlan
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.point import Point
from codellm_eval.bench.records.record import Gap
from codellm_eval.bench.show.notes import notes
from codellm_eval.bench.show.table import markdown, render, sections
from codellm_eval.perplexity.divergence import Divergence
from codellm_eval.perplexity.scored import Scored
from codellm_eval.stats.repeats import Repeats
from support.recorded import record


def test_the_widest_figures_of_a_7b_fit_80_columns():
    rows = [record(f"llama-cpp:{scheme}") for scheme in ("f16", "q8_0", "q4_k_m")]
    text = render(rows, Plan(), [], "table")
    assert max(map(len, text.splitlines())) <= 80
    assert "llama-cpp:q4_k_m" in text


def test_a_missing_sandbox_still_fits_80_columns():
    gap = Gap("apt-get install bubblewrap", "bubblewrap is not installed; apt-get install bubblewrap")
    rows = [record(pass_at_1=None, passed=None, tasks=None).with_gap("pass_at_1", gap)]
    text = render(rows, Plan(), notes(rows, Plan(), QualityPlan()), "table")
    assert max(map(len, text.splitlines())) <= 80
    shown = [line.split()[-1] for line in text.splitlines()[5:8]]
    assert shown == ["apt-get", "install", "bubblewrap"]


def test_a_reason_cannot_break_a_table():
    bad = record(error="one | two\nthree \x1b[31m", prefill=None, decode=None, ttft=None, tpot=None)
    for format in ("table", "md"):
        text = render([bad], Plan(), notes([bad], Plan(), None), format)
        assert "\x1b" not in text
        assert "failed" in text
    assert len(render([bad], Plan(), [], "md").strip().splitlines()) == 5  # the title, and a row below the head


def test_limits_above_one_are_explained():
    fast = record(bandwidth=1e9)
    assert any("cache" in note for note in notes([fast], Plan(), None))
    assert not any("cache" in note for note in notes([record()], Plan(), None))


def test_a_disturbed_measurement_says_so():
    wild = record(decode=Repeats((10.0, 5.0, 11.0)))
    assert any("something else used the machine" in note for note in notes([wild], Plan(), None))
    assert not any("something else" in note for note in notes([record()], Plan(), None))


def test_a_reason_shared_by_all_rows_is_told_once():
    rows = [record(f"a:s{n}").with_gap("pass_at_1", Gap("x", "the reason")) for n in range(3)]
    rows = [one.with_gap("bits_per_byte", Gap("x", "the reason")) for one in rows]
    told = [note for note in notes(rows, Plan(), None) if "the reason" in note]
    assert told == ["pass@1, bits/byte: the reason"]


SCORED = tuple(Scored(name=str(n), bytes=100, tokens=30, nll=70.0 + n, agreed=29) for n in range(12))
FIRST = record("llama-cpp:f16", documents=SCORED, canonical=SCORED, verdicts={str(n): n < 11 for n in range(12)})


def beside(row="llama-cpp:q4_k_m", worse=0.0, lost=0):
    """A row that needs `worse` nats more of each text, and solves as many tasks less."""
    texts = tuple(attrs.evolve(text, nll=text.nll + worse) for text in SCORED)
    own = record(
        row, documents=texts, canonical=texts, verdicts={str(n): n < 11 - lost for n in range(12)},
        reading="document, window 1024, stride 512", canonical_asked=12,
        divergence=Divergence(tokens=2048, kl=0.0000123, top1=0.99912),
    )  # fmt: skip
    return own.compared_with(FIRST)


def test_what_is_not_told_apart_from_the_reference_is_marked():
    text = render([FIRST, beside("a:same"), beside("a:worse", worse=7.0, lost=7)], Plan(), [], "table")
    lines = [line.split() for line in text.splitlines()]
    same, worse = ([line for line in lines if line[:1] == [row]][:2] for row in ("a:same", "a:worse"))
    assert [line[-2:] for line in same] == [["≈1.234", "≈12.8"], ["99.9", "≈21/164"]]
    assert [line[-2:] for line in worse] == [["1.234", "12.8"], ["99.9", "21/164"]]
    assert same[1][1:] == ["≈1.234", "≈1.089", "96.7", "1.2e-05", "99.9", "≈21/164"]
    assert "+.0000…+.0000" in text
    assert "+.101…+.101" in text
    assert "+0 -7" in text


def test_marks_are_explained_where_there_are_any():
    told = notes([FIRST, beside()], Plan(), QualityPlan())
    assert any("≈ not told apart from llama-cpp:f16" in note and "McNemar" in note for note in told)
    assert not any("≈" in note for note in notes([FIRST], Plan(), QualityPlan()))
    few = attrs.evolve(FIRST, canonical_asked=164)
    assert "llama-cpp:f16: 12 of 164 canonical solutions fit its context" in notes([few], Plan(), QualityPlan())


def test_the_widest_comparison_fits_80_columns():
    rows = [FIRST, *(beside(f"llama-cpp:{scheme}", worse) for scheme, worse in (("q8_0", 0.01), ("q4_k_m", -900.0)))]
    text = render(rows, Plan(), notes(rows, Plan(), QualityPlan()), "table")
    assert max(map(len, text.splitlines())) <= 80
    assert "quality against llama-cpp:f16; bits/byte: document, window 1024, stride 512" in text


def test_long_names_of_rows_leave_their_figures_80_columns():
    options = "attn_implementation=flash_attention_2,compute_dtype=bfloat16"
    rows = [attrs.evolve(FIRST, row=Row.parse("transformers-cuda::dtype=bfloat16"))]
    rows += [beside(f"transformers-cuda:bnb-nf4:{options}"), beside(f"transformers-cuda:bnb-int8:{options}", -900.0)]
    text = render(rows, Plan(), [], "table")
    assert max(map(len, text.splitlines())) <= 80
    lines = text.splitlines()
    place = next(
        place for place, line in enumerate(lines) if line.startswith(f"transformers-cuda:bnb-nf4:{options[:30]}")
    )
    assert lines[place + 1] == "compute_dtype=bfloat16"
    assert lines[place + 2].split()[:2] == ["14345", "15050"]


def test_every_figure_of_quality_names_its_protocol():
    titles = [section.title for section in sections([FIRST, beside()], Plan())]
    by_document, greedy = "bits/byte: document, window 1024, stride 512", "pass@1: HumanEval, greedy"
    assert all(by_document in title for title in titles[:3])
    assert all(greedy in title for title in titles[:2])
    assert all("canonical: HumanEval's solutions" in title for title in titles[1:3])


def test_perplexity_and_log_probability_are_of_the_same_texts():
    shown = markdown(sections([FIRST, beside(worse=7.0)], Plan())[2], [FIRST, beside(worse=7.0)]).splitlines()
    mean = sum(text.nll for text in SCORED) / sum(text.tokens for text in SCORED)
    cells = [cell.strip() for cell in shown[-2].split("|")[2:4]]
    assert cells == [f"{math.exp(mean):.3f}", f"{-sum(text.nll for text in SCORED):.1f}"]


def test_a_difference_of_one_task_is_no_loss():
    """Whatever the rows solve: no test tells one task of 164 from chance."""
    for solved_by_reference in (1, 9, 10, 60, 164):
        verdicts = {str(n): n < solved_by_reference for n in range(164)}
        reference = attrs.evolve(FIRST, verdicts=verdicts, passed=solved_by_reference)
        own = attrs.evolve(reference, verdicts={**verdicts, "0": False}, passed=solved_by_reference - 1, against=None)
        against = own.compared_with(reference).against
        assert (against.solved.gained, against.solved.lost) == (0, 1)
        assert not against.solved.told_apart
        assert f"≈{solved_by_reference - 1}/164" in render([reference, own.compared_with(reference)], Plan(), [], "md")


GROWN = Plan(growth=True).fit(2048)


def grown(row="llama-cpp:q4_k_m"):
    points = tuple(Point(each, Repeats((100.0 * each.batch_size, 110.0 * each.batch_size))) for each in GROWN.workloads)
    return record(row, plan=GROWN, points=points, itl_p50=Repeats((0.01, 0.02)), itl_p95=Repeats((0.02, 0.02)))


def test_further_workloads_stand_in_tables_of_their_own_within_80_columns():
    text = render([grown(), grown("llama-cpp:q8_0")], Plan(growth=True), [], "table")
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("@ d128", "@ d512", "@ d1920", "batch 8", "ITL p95", "840", "105 each", "±5%"):
        assert expected in text, expected
    assert "840 ±5% 105 each" in render([grown()], Plan(growth=True), [], "md")


def test_a_single_measurement_tells_no_spread():
    plan, value = Plan(repeats=1), Repeats((88.8,))
    once = record(plan=plan, prefill=value, decode=value, ttft=value, tpot=value)
    text = render([once], plan, notes([once], plan, QualityPlan()), "md")
    assert "88.8 once" in text
    assert "measured once" in text
    assert "±" not in text.partition("bits/byte (")[0]


def test_a_workload_that_one_row_lacks_is_a_column_for_programs_of_all():
    lacking = attrs.evolve(grown("a:b"), points=()).with_gap("points", Gap("failed", "no memory for 8"))
    for first, second in ((lacking, grown()), (grown(), lacking)):
        found = json.loads(render([first, second], Plan(growth=True), [], "json"))
        assert found[0].keys() == found[1].keys()
        rates = {row["row"]: (row["tg128_d0_b8_tokens_per_second"], row["points_reason"]) for row in found}
        assert rates == {"llama-cpp:q4_k_m": (840, None), "a:b": (None, "no memory for 8")}
    text = render([lacking, grown()], Plan(growth=True), notes([lacking, grown()], Plan(growth=True), None), "table")
    assert "further workloads (a:b): no memory for 8" in text


def test_a_workload_that_does_not_fit_is_named():
    asked = Plan.of_lists(prompt_tokens=[512], new_tokens=[128], batch_sizes=[1], contexts=[0, 4000])
    short = record(plan=asked.fit(2048))
    assert any("too short for pp512 @ d4000, tg128 @ d4000" in note for note in notes([short], asked, None))
