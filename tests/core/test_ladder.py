"""One model in many schemes."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import attrs
import pytest

from codellm.artifacts import ladder, store
from codellm.artifacts.calibration import Calibration
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.scheme import PRECISIONS


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def codellm(*arguments, code=0):
    done = subprocess.run([sys.executable, "-m", "codellm", *arguments], capture_output=True, text=True, env=os.environ)
    assert done.returncode == code, done.stderr
    return done


def climb(model, *schemes, **more):
    source = find(model).fetch()
    return list(ladder.climb(source, [registry().scheme(name) for name in schemes], **more))


def kept_schemes():
    return [kept.manifest["scheme"] for kept in store.kept_artifacts()]


def test_a_ladder_says_what_each_takes_and_costs(cache):
    rungs = climb("codellm-demo", "bf16", "q8_0", "q4_0", threads=1)
    assert [rung.scheme.name for rung in rungs] == ["bf16", "q8_0", "q4_0"]
    assert [rung.fault for rung in rungs] == ["", "", ""]
    assert [rung.size for rung in rungs] == [rung.kept.path.stat().st_size for rung in rungs]
    assert rungs[0].bits_per_weight == pytest.approx(16, rel=0.01)
    assert rungs[1].bits_per_weight == pytest.approx(8.5, rel=0.02)
    assert rungs[0].bits_per_byte <= rungs[1].bits_per_byte < rungs[2].bits_per_byte
    assert all(rung.seconds is not None for rung in rungs)
    again = climb("codellm-demo", "q8_0", progress=lambda *event: pytest.fail("made twice"))
    assert again[0].manifest == rungs[1].manifest
    assert not again[0].made


def test_dummy_weights_get_no_quality(cache):
    [rung] = climb("dummy:tiny", "q8_0", threads=1)
    assert rung.bits_per_byte is None
    assert rung.bits_per_weight is not None


def test_a_rung_that_the_gate_refuses_tells_its_figures_and_the_others_go_on(cache):
    source = find("codellm-demo").fetch()
    strict = attrs.evolve(registry().scheme("q4_0"), bound=0.0)
    refused, passed = ladder.climb(source, [strict, registry().scheme("q8_0")], threads=1)
    assert "over its bound of 0" in refused.fault
    assert refused.kept is None
    assert refused.size > 3_000_000
    assert refused.bits_per_byte > passed.bits_per_byte
    assert kept_schemes() == ["bf16", "q8_0"]


def test_without_keep_only_what_was_there_stays(cache):
    climb("dummy:tiny", "q8_0", threads=1)
    seen = []
    for rung in ladder.climb(
        find("dummy:tiny").fetch(),
        [registry().scheme(name) for name in ("q8_0", "q4_0", "q5_0")],
        threads=1,
        keep=False,
    ):
        seen.append(rung.kept.path.exists())
        assert len(kept_schemes()) <= 3
    assert seen == [True] * 3
    assert kept_schemes() == ["bf16", "q8_0"]
    for kept in store.kept_artifacts():
        store.remove(kept)
    climb("dummy:tiny", "q4_0", threads=1, keep=False)
    assert kept_schemes() == []


def test_a_text_goes_to_the_schemes_that_take_one(cache):
    text = Calibration("mine", "def f(x):\n    return x\n" * 30)
    rungs = climb("dummy:tiny", "q8_0", "q4_0", threads=1, calibration=text)
    assert [rung.manifest.get("calibration", {}).get("text") for rung in rungs] == [None, "mine"]


def test_all_are_the_models_own_precision_and_every_one_of_fewer_bits():
    source = find("codellm-demo").fetch()
    names = [scheme.name for scheme in ladder.all_schemes(source)]
    assert names[0] == PRECISIONS[source.dtype] == "bf16"
    assert {"q8_0", "q4_k_m", "iq1_s"} < set(names)
    assert not {"f32", "f16"} & set(names)
    assert [registry().scheme(name).bits for name in names] == sorted(
        (registry().scheme(name).bits for name in names), reverse=True
    )


def test_the_command_prints_a_table_and_fails_where_a_named_scheme_fails(cache, tmp_path):
    done = codellm(
        *("quantize", "codellm-demo", "-q", "q8_0", "-q", "q1_0", "--threads", "1"),
        *("--format", "json", "--output", str(tmp_path)),
        code=1,
    )
    good, bad = json.loads(done.stdout)
    assert (good["scheme"], good["verdict"]) == ("q8_0", "passed")
    told = re.match(r"refused: rises from (0\.\d{3}) to (5\.\d{3}) bits per byte", bad["verdict"])
    assert told, bad["verdict"]
    assert float(told[1]) == pytest.approx(0.8995, abs=0.002)  # the third decimal is the processor's
    assert float(told[2]) == pytest.approx(bad["bits_per_byte"], abs=0.0005)
    assert bad["bits_per_byte"] == pytest.approx(5.04, abs=0.04)
    assert bad["bits_per_weight"] < 2.1
    assert (tmp_path / "codellm-demo-q8_0.gguf").stat().st_size == good["size"]
    assert kept_schemes() == ["bf16", "q8_0"]
    words = codellm("quantize", "dummy:tiny", "-q", "q8_0", "-q", "q4_0", "--threads", "1", "--format", "md").stdout
    assert "| 8.51 | n/a |" in words
    rows = codellm("quantize", "dummy:tiny", "-q", "q8_0", "-q", "q4_0", "--format", "csv").stdout
    assert [row["bits_per_byte"] for row in csv.DictReader(io.StringIO(rows))] == ["", ""]


@pytest.mark.parametrize(("arguments", "reason"), [
    ((), "name a scheme"),
    (("-q", "q8_0", "--all"), "name a scheme"),
    (("-q", "q8_0", "--discard"), "--discard is for a table"),
    (("-q", "q8_0", "-q", "q4_0", "--output", "no-such-folder"), "no-such-folder is no directory"),
    (("-q", "q8_0", "--calibration", "no-such-file"), "calibration text no-such-file: no such file"),
])  # fmt: skip
def test_what_makes_no_sense_is_told(cache, arguments, reason):
    done = subprocess.run(
        [sys.executable, "-m", "codellm", "quantize", "dummy:tiny", *arguments], capture_output=True, text=True
    )
    assert done.returncode in {1, 2}
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
