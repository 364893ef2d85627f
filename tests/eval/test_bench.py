"""`codellm bench` from the command line to the results folder, on a small real backend that a plugin brings."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

PLUGIN = '''
"""A backend whose model is a bigram: after token i comes 7 i + 3. Its option `fault` breaks it in one way."""

import os
import signal
import time

import numpy as np

from codellm import Availability, Backend, ByteTokenizer, Memory, Model, ModelInfo, Scheme, Token, hookimpl
from codellm.errors import InvalidValueError


class Bigram(Model):
    def __init__(self, spec, dummy):
        self.fault = spec.options.get("fault", "")
        self.seen = set()
        self.tokenizer = ByteTokenizer()
        self.info = ModelInfo(
            backend="toy", architecture="Bigram", parameters=257, weight_bytes=1_000_000,
            context_length=spec.context_length or 1024, scheme=spec.scheme or "none", batch_size=spec.batch_size,
            threads=spec.threads, dummy=dummy,
        )

    def run(self, sequences):
        with self.claim():
            for sequence in sequences:
                yield from self.one(sequence)

    def one(self, sequence):
        first = sequence.prompt_ids[0]
        if self.fault == "cached" and first in self.seen:
            raise RuntimeError("a prompt began like an earlier one")
        self.seen.add(first)
        if self.fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "exit":
            os._exit(3)
        last, count = sequence.prompt_ids[-1], 0
        time.sleep(1e-6 * len(sequence.prompt_ids))
        while not sequence.finished:
            if self.fault == "short" and count == 3:
                sequence.error = RuntimeError("nothing more comes")
                return
            time.sleep(1e-4)
            last, count = (7 * last + 3) % 257, count + 1
            yield [Token(last, sequence)]

    def score(self, batch):
        if self.fault == "crash-late":
            os.kill(os.getpid(), signal.SIGABRT)
        if self.fault == "no-score":
            raise RuntimeError("scoring is broken")
        with self.claim():
            return [np.full(len(ids) - 1, -np.log(257), np.float32) for ids in batch]

    def logits(self, ids):
        logits = np.zeros(257, np.float32)
        logits[(7 * ids[-1] + 3) % 257] = 1
        return logits

    def memory(self):
        return Memory(host=10_000_000, host_peak=20_000_000)

class Toy(Backend):
    name, formats, preference = "toy", frozenset({"safetensors"}), 1

    def schemes(self):
        return (Scheme(name="int8", bits=8, applies="load"), Scheme(name="int4", bits=4, applies="load"))

    def load(self, spec, source):
        fault = spec.options.get("fault")
        if fault == "chatter":
            print("{\\"error\\": \\"not an event\\"}", flush=True)
            os.write(2, b"noise on stderr\\n")
        if fault == "load":
            raise InvalidValueError("the weights | are\\nupside down")
        if fault == "hang":
            print("about to hang", flush=True)
            time.sleep(1000)
        return Bigram(spec, source.dummy)

    def bandwidth(self, device):
        return 1e9


class Absent(Toy):
    name = "absent"

    def availability(self):
        return Availability(False, "no such hardware", "buy some")


@hookimpl
def codellm_backends():
    return [Toy(), Absent()]
'''

SMALL = ["--repeats", "2", "--prompt-tokens", "32", "--new-tokens", "8"]
COMMAND = [sys.executable, "-c", "import sys; from codellm.cli import main; sys.exit(main())", "bench"]


@pytest.fixture
def place(tmp_path):
    """A directory to run in, a model in it, and the plugin installed beside it."""
    site = tmp_path / "site"
    info = site / "codellm_toy-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "codellm_toy.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: codellm-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[codellm]\ntoy = codellm_toy\n")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return tmp_path


def environment(place):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(place / "site"), os.environ.get("PYTHONPATH", "")]),
        "CODELLM_CACHE": str(place / "cache"),
    }


def bench(place, *arguments, model="model", code=0):
    done = subprocess.run(
        [*COMMAND, "-m", model, "--output", "out", *SMALL, *arguments],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def rows(place, *arguments, **how):
    done = bench(place, "--format", "jsonl", *arguments, **how)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_row_has_every_figure(place):
    [row] = rows(place, "--row", "toy:int8:threads=3")
    assert row["row"] == "toy:int8:threads=3"
    assert row["error"] is None
    assert (row["threads"], row["scheme"], row["weight_bytes"]) == (3, "int8", 1_000_000)
    assert (row["pp_tokens"], row["tg_tokens"], row["repeats"]) == (32, 8, 2)
    assert row["peak_host_bytes"] == 20_000_000
    for key in ("pp_tokens_per_second", "tg_tokens_per_second", "ttft_seconds", "tpot_seconds"):
        assert row[key] > 0
        assert row[f"{key}_spread"] >= 0
    assert row["limit_share"] == pytest.approx(1e6 * row["tg_tokens_per_second"] / 1e9)
    assert 1000 < row["tg_tokens_per_second"] < 10_000  # the toy sleeps 0.1 ms a token


def test_default_rows_are_those_of_available_backends(place):
    done = bench(place, "--no-quality", "--format", "jsonl")
    names = [json.loads(line)["row"] for line in done.stdout.splitlines()]
    toys = [name for name in names if name.startswith("toy")]
    assert toys == ["toy", "toy:int8", "toy:int4"]
    assert not any(name.startswith("absent") for name in names)
    assert "left out: absent: no such hardware; buy some" in done.stderr


def test_a_failing_row_says_why_and_the_rest_go_on(place):
    faults = ("load", "crash", "exit", "short")
    found = rows(
        place, "--no-quality", *(part for fault in faults for part in ("--row", f"toy:int8:fault={fault}")),
        "--row", "absent", "--row", "toy:int4",
    )  # fmt: skip
    errors = {row["row"].rpartition("=")[2]: row["error"] for row in found}
    assert errors["load"] == "the weights | are upside down"
    assert "killed by SIGSEGV in the phase 'warm-up'" in errors["crash"]
    assert "ended with code 3" in errors["exit"]
    assert "nothing more comes" in errors["short"]
    assert "no such hardware; buy some" in errors["absent"]
    assert errors["toy:int4"] is None
    assert found[0]["pp_tokens_per_second"] is None


def test_all_rows_failing_is_exit_code_1(place):
    done = bench(place, "--row", "toy:int8:fault=load", code=1)
    assert "toy:int8:fault=load failed: the weights | are upside down" in " ".join(done.stdout.split())


def test_a_hanging_row_is_ended_and_its_process_gone(place):
    start = time.monotonic()
    [hung, fine] = rows(place, "--no-quality", "--timeout", "4", "--row", "toy:int8:fault=hang", "--row", "toy:int8")
    assert time.monotonic() - start < 60
    assert "not done after 4 s, ended in the phase 'load'" in hung["error"]
    assert fine["error"] is None
    assert children_of(place) == []


def children_of(place):
    """Processes that run in `place`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == place.resolve():
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_a_library_that_prints_disturbs_nothing(place):
    done = bench(place, "--no-quality", "--format", "json", "--row", "toy:int8:fault=chatter")
    [row] = json.loads(done.stdout)
    assert row["error"] is None


def test_no_prompt_begins_like_an_earlier_one(place):
    [row] = rows(place, "--no-quality", "--repeats", "20", "--row", "toy:int8:fault=cached")
    assert row["error"] is None


def test_sizes_shrink_to_the_context_and_the_table_says_so(place):
    done = bench(place, "--no-quality", "--row", "toy:int8:context_length=16")
    text = " ".join(done.stdout.split())
    assert "its context is 16, so it measured pp15, tg8 and a request of 8+8 tokens" in text


def test_dummy_weights_show_no_quality(place):
    done = bench(place, "--row", "toy:int8", "--format", "md", model="dummy:tiny")
    cells = [cell.strip() for cell in done.stdout.splitlines()[2].strip("|").split("|")]
    assert cells[-2:] == ["dummy", "dummy"]
    assert float(cells[1]) > 0


def test_quality_that_fails_leaves_the_speed(place):
    broken, died = rows(place, "--row", "toy:int8:fault=no-score", "--row", "toy:int8:fault=crash-late")
    for row, reason in ((broken, "scoring is broken"), (died, "killed by SIGABRT in the phase")):
        assert row["error"] is None
        assert row["tg_tokens_per_second"] > 0
        assert row["bits_per_byte"] is None
        assert reason in row["bits_per_byte_reason"]


def test_bits_per_byte_of_a_uniform_model(place):
    [row] = rows(place, "--quality-bytes", "2000", "--row", "toy:int8")
    assert row["bits_per_byte"] == pytest.approx(8.0056, rel=2e-3)  # log2(257), each byte a token


def test_without_permission_the_cell_says_what_to_add(place):
    done = bench(place, "--row", "toy:int8", "--quality-bytes", "2000")
    assert "--allow-code-execution" in done.stdout


def test_pass_at_1_with_its_completions_kept(place):
    from codellm_eval.sandbox import sandbox_status

    if not sandbox_status().ok:
        pytest.skip(sandbox_status().reason)
    [row] = rows(place, "--row", "toy:int8", "--allow-code-execution", "--limit", "3", "--max-tokens", "8")
    assert (row["pass_at_1"], row["passed"], row["tasks"]) == (0, 0, 3)
    kept = [json.loads(line) for line in (place / "out" / "samples-toy-int8.jsonl").read_text().splitlines()]
    assert [line["task_id"] for line in kept] == ["HumanEval/0", "HumanEval/1", "HumanEval/2"]
    assert not any(line["passed"] for line in kept)


def test_without_bubblewrap_the_cell_says_how_to_get_it(place):
    path = place / "bin"
    path.mkdir()
    done = subprocess.run(
        [*COMMAND, "-m", "model", *SMALL, "--row", "toy:int8", "--quality-bytes", "2000", "--allow-code-execution",
         "--output", "out"],
        cwd=place,
        env={**environment(place), "PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = done.stdout.split("\n\n")[0].splitlines()[3:]
    assert [line.split()[-1] for line in row] == ["apt-get", "install", "bubblewrap"]
    assert "install bubblewrap" in " ".join(done.stdout.split())


def test_the_table_fits_80_columns_and_names_its_protocol(place):
    done = bench(place, "--row", "toy:int8", "--row", "toy:int4", "--no-quality")
    assert max(map(len, done.stdout.splitlines())) <= 80
    head = done.stdout.splitlines()[0].split()
    assert head == ["row", "size", "pp32", "tg8", "TTFT", "TPOT", "limit", "peak", "bits/", "pass@1"]
    assert "median of 2" in " ".join(done.stdout.split())
    assert "±" in done.stdout


def test_csv_holds_what_jsonl_holds(place):
    done = bench(place, "--format", "csv", "--no-quality", "--row", "toy:int8")
    [row] = csv.DictReader(io.StringIO(done.stdout))
    assert row["row"] == "toy:int8"
    assert float(row["tg_tokens_per_second"]) > 0
    assert float(row["tg_tokens_per_second_spread"]) >= 0


def test_the_results_folder(place):
    done = bench(place, "--no-quality", "--row", "toy:int8", "--row", "toy:int4:fault=load")
    assert done.stderr.splitlines()[-2:] == ["results: out", "report: out/report.html"]
    out = place / "out"
    assert "toy:int4:fault=load failed: the weights | are upside down" in (out / "report.html").read_text()
    kept = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [row["row"] for row in kept] == ["toy:int8", "toy:int4:fault=load"]
    assert len(kept[0]["prefill"]) == 2
    assert "toy:int8" in (out / "table.md").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    assert "--row toy:int8" in manifest["command"]
    assert manifest["seeds"] == [0]
    assert manifest["bench"]["plan"]["prompt_tokens"] == 32
    again = bench(place, "--row", "toy:int8", code=2)
    assert "holds the results of another benchmark" in again.stderr


def test_the_default_folder_is_named_by_time_and_model(place):
    subprocess.run(
        [*COMMAND, "-m", "model", *SMALL, "--no-quality", "--row", "toy:int8"],
        cwd=place, env=environment(place), capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    [folder] = (place / "results").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-model", folder.name)


def test_ctrl_c_keeps_the_finished_rows(place):
    process = subprocess.Popen(
        [*COMMAND, "-m", "model", *SMALL, "--no-quality", "--output", "out", "--row", "toy:int8", "--row",
         "toy:int8:fault=hang"],
        cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    rows_file = place / "out" / "rows.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (rows_file.exists() and rows_file.read_text()):
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "toy:int8" in out
    assert "fault=hang" not in out
    assert "results: out\nreport: out/report.html\n" in err
    assert "fault=hang" not in (place / "out" / "report.html").read_text().partition("Manifest")[0].partition("<h2>")[2]
    assert len(rows_file.read_text().splitlines()) == 1
    assert json.loads((place / "out" / "manifest.json").read_text())["command"]
    assert children_of(place) == []


def test_a_killed_parent_takes_its_row_along(place):
    process = subprocess.Popen(
        [*COMMAND, "-m", "model", *SMALL, "--no-quality", "--row", "toy:int8:fault=hang"],
        cwd=place, env=environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(children_of(place)) < 2:
        time.sleep(0.1)
    process.kill()
    process.wait()
    while time.monotonic() < deadline and children_of(place):
        time.sleep(0.1)
    assert children_of(place) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--row", "toi:int8"], "did you mean 'toy'"),
        (["--row", "toy:int9"], "did you mean 'int8'"),
        (["--row", "toy:int8:threads=no"], "threads must be a whole number"),
        (["--row", "toy:int8", "--row", "toy:int8"], "given twice"),
        (["--row", "toy:int8", "--repeats", "0"], "repeats must be at least 1"),
        (["--row", "toy:int8", "--new-tokens", "1"], "new_tokens must be at least 2"),
        (["--row", "toy:int8", "--limit", "0"], "limit must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(place, arguments, says):
    done = subprocess.run(
        [*COMMAND, "-m", "model", *arguments],
        cwd=place, env=environment(place), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in {1, 2}
    assert says in done.stderr
    assert not (place / "results").exists()


def test_llama_cpp_rows_of_every_scheme(place):
    """The real backend, on a model with no file: six rows, each measured, none with a figure of quality."""
    pytest.importorskip("llama_cpp")
    schemes = ("f16", "bf16", "q8_0", "q4_0", "q4_k_m", "q4_k_s")
    named = (part for scheme in schemes for part in ("--row", f"llama-cpp:{scheme}:threads=1"))
    found = rows(place, "--repeats", "1", *named, model="dummy:tiny")
    assert [row["scheme"] for row in found] == list(schemes)
    for row in found:
        assert row["error"] is None
        assert row["dummy"]
        assert min(row["limit_share"], row["pp_tokens_per_second"], row["peak_host_bytes"]) > 0
        assert row["bits_per_byte"] is None
        assert row["pass_at_1"] is None
    weights = {row["scheme"]: row["weight_bytes"] for row in found}
    assert weights["f16"] > weights["q8_0"] > weights["q4_0"]
    assert len({row["bandwidth_bytes_per_second"] for row in found}) == 1  # one limit for all rows


def test_help_is_quick(place):
    code = """
        import sys
        from codellm.cli import main
        main(["bench", "--help"])
        heavy = {"numpy", "cattrs", "tabulate", "rich", "psutil", "tokenizers"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment(place), check=True, timeout=60)
