"""How requests and servers end: clients that hang up, full queues, keys, signals."""

import signal
import socket
import subprocess
import sys

import openai
import pytest

from support.serving import serving

ENDLESS = {"prompt": "x", "n": 64, "max_tokens": 1500, "ignore_eos": True, "temperature": 1.0}
"""A minute of work in one slot."""


def next_of(events):
    """The first events of a stream, its work far from done."""
    return [next(events), next(events)]


@pytest.fixture(scope="module")
def server():
    with serving("--batch-size", "1", "--queue-size", "4", key="sesame") as server:
        yield server


def test_a_full_queue_says_when_to_come_again_and_hanging_up_empties_it(server):
    with server.streaming("/v1/completions", ENDLESS) as events:
        next_of(events)
        full = server.ask("/v1/completions", {"prompt": "y", "max_tokens": 1})
        assert (full.status, full.error["code"], full.headers["Retry-After"]) == (429, "queue_full", "1")
    while server.ask("/v1/completions", {"prompt": "y", "max_tokens": 1}).status == 429:
        pass  # until the server has seen it; were the slot not free, the test would never end
    assert server.ask("/health").status == 200


def test_a_client_that_does_not_stream_frees_its_slot_too(server):
    for _ in range(3):
        connection = server.connect()
        connection.request("POST", "/v1/completions", str(ENDLESS).replace("'", '"').replace("True", "true"),
                           {"Authorization": "Bearer sesame"})  # fmt: skip
        connection.close()
    while server.ask("/v1/completions", {"prompt": "y", "max_tokens": 1}).status == 429:
        pass


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer sesam", "Bearer sesame ", "Basic sesame", "Bearer s\xe9same"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions", "/infill", "/tokenize"])
def test_without_the_key_nothing_is_answered(server, path, header):
    if header.endswith(" "):
        header += "x"
    body = None if path == "/v1/models" else {"prompt": "x", "content": "x"}
    answer = server.ask(path, body, Authorization=header)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


def test_the_client_bears_the_key(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sesame", max_retries=0) as client:
        assert client.completions.create(model="codellm-demo", prompt="x", max_tokens=1).choices
        stranger = client.with_options(api_key="wrong")
        with pytest.raises(openai.AuthenticationError):
            stranger.completions.create(model="codellm-demo", prompt="x")
    assert "sesame" not in "".join(server.log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_before_the_end(number):
    with serving() as server:
        with server.streaming("/v1/completions", {"prompt": "x", "max_tokens": 500, "ignore_eos": True}) as events:
            next_of(events)
            server.process.send_signal(number)
            *_, last, done = events
        assert (last["choices"][0]["finish_reason"], done) == ("length", "[DONE]")
        assert server.process.wait(60) == 0
        with pytest.raises(ConnectionError):
            server.ask("/health")


def test_what_takes_too_long_is_told_so():
    with serving("--shutdown-timeout", "0.2") as server:
        with server.streaming("/v1/completions", ENDLESS) as events:
            next_of(events)
            server.process.send_signal(signal.SIGTERM)
            *_, last, done = events
        assert (last["error"]["code"], done) == ("stopping", "[DONE]")
        assert server.process.wait(60) == 0


def test_an_address_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        command = [sys.executable, "-m", "codellm", "serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port} cannot be had" in done.stderr


def test_without_the_extra_one_line_says_what_to_install():
    hide = "import sys; sys.modules['uvicorn'] = None; from codellm.cli import main; sys.exit(main(['serve']))"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == 'codellm: codellm serve needs uvicorn: pip install "codellm-core[serve]"'


def test_its_help_imports_no_server():
    code = "import sys; from codellm.cli import main; main(['serve', '--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not {"starlette", "uvicorn", "asyncio", "numpy", "rich"} & set(done.stderr.split())
