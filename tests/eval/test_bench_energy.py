"""Energy: counters that a machine has, may not read, or lacks. The files are made, as no machine of a CI has them."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import MachineError
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.measure.energy import measure_energy
from codellm_eval.bench.measure.meter import Nvml, Rapl, Zone, meter
from support.bench_toy import rows
from support.packages import pretend_absent
from support.script_model import ScriptModel

RANGE = 262_143_328_850


def zone(root, folder, name, joules=0.0):
    path = root / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (path / "energy_uj").write_text(f"{round(1e6 * joules)}\n")
    return path


def test_packages_and_memory_count_and_their_parts_do_not_twice(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 10)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:0:1", "dram", 100)
    zone(tmp_path, "intel-rapl:1", "package-1", 20)
    zone(tmp_path, "intel-rapl:2", "psys", 1000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 10)
    counter = Rapl.open(tmp_path)
    assert counter.name == "RAPL package-0 + dram + package-1"
    assert counter.joules() == 0
    for folder, name, joules in (("intel-rapl:0", "package-0", 13), ("intel-rapl:0:0", "core", 8),
                                 ("intel-rapl:0:1", "dram", 101), ("intel-rapl:2", "psys", 2000)):  # fmt: skip
        zone(tmp_path, folder, name, joules)
    assert counter.joules() == pytest.approx(4)


@given(st.integers(0, RANGE), st.lists(st.integers(0, RANGE), max_size=6))
def test_a_counter_that_starts_over_goes_on(tmp_path_factory, start, steps):
    root = tmp_path_factory.mktemp("zone")
    path = zone(root, "intel-rapl:0", "package-0")
    (path / "energy_uj").write_text(str(start))
    counter, now = Zone.open(path), start
    for step in steps:
        now = (now + step) % (RANGE + 1)
        (path / "energy_uj").write_text(str(now))
        counter.joules()
    assert counter.joules() == pytest.approx(sum(steps) / 1e6)


def test_a_machine_without_a_counter_says_so(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(MachineError, match="has no counter of energy"):
            Rapl.open(root)


def test_a_counter_that_cannot_be_read_is_named(tmp_path):
    path = zone(tmp_path, "intel-rapl:0", "package-0") / "energy_uj"
    path.unlink()
    path.mkdir()
    with pytest.raises(MachineError, match=r"intel-rapl:0/energy_uj cannot be read \(Is a directory\)"):
        Rapl.open(tmp_path)


def test_without_the_library_the_remedy_is_named(monkeypatch):
    pretend_absent(monkeypatch, "pynvml")
    with pytest.raises(MachineError, match=r'pip install "codellm-eval\[energy\]"'):
        meter("cuda:0")


def test_without_a_gpu_nvml_says_why():
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        with pytest.raises(MachineError, match="NVML does not tell GPU 0's energy"):
            meter("cuda")
    else:
        assert Nvml.open(0).joules() > 0


@attrs.define
class Counter:
    """So many joules more at each look."""

    step: float
    name: str = "a counter"
    period: float = 0.0
    told: float = 0.0

    def joules(self):
        self.told += self.step
        return self.told


def test_joules_are_told_by_all_tokens_of_a_window():
    found = measure_energy(ScriptModel(), Plan(new_tokens=4), Counter(8.0), seconds=0.0)  # one request each
    assert (found.joules_per_token.values, found.energy_source) == ((2.0,) * 3, "a counter")


def test_a_counter_that_stands_still_tells_nothing():
    with pytest.raises(MachineError, match="did not move"):
        measure_energy(ScriptModel(), Plan(new_tokens=4), Counter(0.0), seconds=0.0)


def test_the_row_says_why_it_has_no_energy(workdir):
    [row] = rows(workdir, "--no-quality", "--row", "toy:int8")
    assert (row["joules_per_token"] is None) == bool(row["joules_per_token_reason"])
