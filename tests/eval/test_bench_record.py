"""Records: filled as a process reports, kept as JSON."""

import json

import pytest

from codellm_eval.bench.ask.job import Job, QualityPlan
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.record import Gap, Record, make_converter, merge
from codellm_eval.stats.repeats import Repeats
from support.recorded import INFO, record


def test_records_survive_json():
    converter = make_converter()
    one = record().with_gap("pass_at_1", Gap("a", "b"))
    text = json.dumps(converter.unstructure(one))
    assert converter.structure(json.loads(text), Record) == one
    job = Job(row=Row.parse("a:b:c=d"), model="m", plan=Plan(), quality=QualityPlan(), bandwidths={"a@b": 1.5})
    assert converter.structure(json.loads(json.dumps(converter.unstructure(job))), Job) == job


def test_what_a_process_reports_is_merged():
    converter = make_converter()
    blank = Record(row=Row.parse("a"), model="m")
    full = merge(blank, {"info": converter.unstructure(INFO), "prefill": [1, 2], "host_peak": 5}, converter)
    assert (full.info, full.prefill, full.host_peak) == (INFO, Repeats((1.0, 2.0)), 5)
    with pytest.raises(ValueError, match="no field rate"):
        merge(blank, {"rate": 5}, converter)
