"""docs/serve.md: its requests are answered, and its tables name what there is."""

import json
import re
import shlex
from pathlib import Path

import pytest

from codellm.serve.app import GETS, OF_A_MODEL, POSTS
from codellm.serve.body import REFUSED
from support.serving import serving

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
CURLS = [shlex.split(line) for line in re.findall(r"^curl .*$", PAGE, re.MULTILINE)]


@pytest.fixture(scope="module")
def server():
    with serving("-m", "codellm-demo") as server:
        yield server


@pytest.mark.parametrize("command", CURLS, ids=lambda command: command[1])
def test_a_request_of_the_page_is_answered(server, command):
    _, url, flag, body = command
    assert flag == "-d"
    path = url.removeprefix("http://127.0.0.1:8012")
    answer = server.ask(path, json.loads(body))
    assert answer.status == 200
    assert answer.json.get("content") or answer.json["choices"][0]["text"]


def test_the_endpoints_are_those_of_the_server():
    named = set(re.findall(r"`(?:GET|POST) (/[\w/-]*)`", PAGE))
    assert named == {*GETS, *OF_A_MODEL, *POSTS, "/metrics"}


def test_the_metrics_are_those_of_the_server(server):
    kinds = re.findall(r"^# TYPE (\S+)", server.ask("/metrics").body.decode(), re.MULTILINE)
    assert sorted(re.findall(r"`(codellm_\w+)`", PAGE)) == sorted(kinds)


def test_what_is_said_to_be_refused_is():
    [said] = re.findall(r"asks for\nnothing: (.*?) and\nothers", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", said)) <= set(REFUSED)
