"""`GET /metrics`: what it counts is what was asked and answered."""

import shutil
from pathlib import Path

import pytest

import codellm
from support.metrics import Read, until
from support.serving import serving

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"
ENDLESS = {"prompt": "x", "max_tokens": 1500, "ignore_eos": True}
GAUGES = ("_running", "_waiting")
TEXT = "def add(a, b):\n    return a + b\n\n\n" * 8
REQUESTS = [
    ("/completion", {"prompt": TEXT, "n_predict": 12, "temperature": 0}),
    ("/completion", {"prompt": TEXT + "def sub(a, b):\n", "n_predict": 7}),
    ("/infill", {"input_prefix": "def add(a, b):\n    ", "input_suffix": "\n", "n_predict": 5}),
    ("/completion", {"prompt": "x", "n_predict": 1}),
]


@pytest.fixture
def server():
    with serving("-m", "codellm-demo", "--batch-size", "2", "--queue-size", "8") as server:
        yield server


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_numbers_are_those_of_the_answers(server, streamed):
    ends = []
    for path, body in REQUESTS:
        if streamed:
            with server.streaming(path, body) as events:
                ends.append([event for event in events if event != "[DONE]"][-1])
        else:
            ends.append(server.ask(path, body).json)
    read = until(server, lambda read: read["codellm_requests_total", "/completion", "200"] == 3)
    generated, cached = (sum(end[name] for end in ends) for name in ("tokens_predicted", "tokens_cached"))
    assert read.of("generated_tokens_total") == generated
    assert read.of("prompt_tokens_total") == sum(end["tokens_evaluated"] for end in ends)
    assert read.of("cached_tokens_total") == cached > 0
    assert read.of("prefix_cache_hits_total") == sum(end["tokens_cached"] > 0 for end in ends)
    assert read.of("time_to_first_token_seconds_count") == 4
    assert read.of("time_to_first_token_seconds_bucket", "+Inf") == 4
    assert read.of("inter_token_latency_seconds_count") == generated - 4
    assert read.of("time_to_first_token_seconds_sum") > 0
    assert read.of("inter_token_latency_seconds_sum") > 0
    assert sum(value for (name, *_), value in read.items() if name == "codellm_sequences_total") == 4
    assert read.of("sequences_running") == read.of("sequences_waiting") == 0
    assert read["codellm_requests_total", "/infill", "200"] == 1


def test_samples_of_a_prompt_count_each(server):
    usage = server.ask("/v1/completions", {**ENDLESS, "max_tokens": 5, "n": 3}).json["usage"]
    read = Read(server)
    assert read.of("sequences_total", "length") == 3
    assert read.of("prompt_tokens_total") == 3 * usage["prompt_tokens"]
    assert read.of("generated_tokens_total") == usage["completion_tokens"] == 15


def test_who_runs_and_who_waits_is_seen_and_who_hangs_up_is_counted(server):
    with server.streaming("/v1/completions", {**ENDLESS, "n": 5}) as events:
        next(events)
        read = until(server, lambda read: read.of("sequences_running") == 2)
        assert read.of("sequences_waiting") == 3
        assert until(server, lambda read: read.of("generated_tokens_total") > 4).of("sequences_total", "length") == 0
    read = until(server, lambda read: read.of("sequences_total", "cancelled") == 2)
    assert (read.of("sequences_running"), read.of("sequences_waiting")) == (0, 0)
    assert read.of("time_to_first_token_seconds_count") == 2
    assert until(server, lambda read: read["codellm_requests_total", "/v1/completions", "499"] == 1)


def test_a_number_never_falls(server):
    before = Read(server)
    with server.streaming("/v1/completions", {**ENDLESS, "n": 2, "max_tokens": 200}) as events:
        next(events)
        while not (read := Read(server)).of("sequences_total", "length"):
            assert all(
                read[key] >= value for key, value in before.items() if not key[0].startswith("codellm_sequences_")
            )
            before = read


def test_paths_that_are_not_there_make_no_series_of_their_own(server):
    for number in range(20):
        assert server.ask(f"/{number}").status == 404
    server.ask("/metrics", {})
    read = until(server, lambda read: read["codellm_requests_total", "other", "404"] == 20)
    assert read["codellm_requests_total", "/metrics", "405"] == 1
    known = {"other", "/metrics"}
    assert {labels[0] for name, *labels in read if name == "codellm_requests_total"} == known


def test_it_wants_the_key():
    with serving("-m", "codellm-demo", key="sesame") as server:
        assert Read(server).of("model_loaded") == 1
        server.key = None
        assert server.ask("/metrics").status == 401


def test_models_that_come_go_and_fail(tmp_path):
    folder = shutil.copytree(DEMO, tmp_path / 'other "demo"\\')
    name = folder.name

    def ask():
        return server.ask("/v1/completions", {**ENDLESS, "max_tokens": 3, "model": name}).status

    with serving("-m", "codellm-demo", "-m", str(folder), "--keep-alive", "0") as server:
        assert Read(server)["codellm_model_loaded", name] == 0
        assert ask() == 200
        until(server, lambda read: read["codellm_model_unloads_total", name] == 1)
        folder.rename(tmp_path / "away")
        assert ask() == 500
        (tmp_path / "away").rename(folder)
        assert ask() == 200
        read = until(server, lambda read: read["codellm_model_unloads_total", name] == 2)
        assert read["codellm_model_loads_total", name] == 2
        assert read["codellm_model_load_failures_total", name] == 1
        assert read["codellm_generated_tokens_total", name] == 6
        assert read["codellm_model_loaded", name] == 0
        assert read["codellm_requests_total", "/v1/completions", "500"] == 1
        read = until(server, lambda read: read.of("model_unloads_total") == 1)
        assert (read.of("model_loads_total"), read.of("model_load_failures_total")) == (1, 0)
