"""By which names a server is asked, and from which pages."""

import pytest

from support.serving import serving


@pytest.fixture(scope="module")
def server():
    with serving("--allowed-host", "code.example.org") as server:
        yield server


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.9:8012", "[::1]:8012", "code.example.org"])
def test_names_of_this_machine_and_those_given_are_answered(server, host):
    assert server.ask("/v1/models", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8012", "[::1", ""])
def test_other_names_are_refused_but_for_the_health(server, host):
    answer = server.ask("/v1/models", Host=host)
    assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")
    assert server.ask("/health", Host=host).status == 200


def test_no_page_of_another_site_may_ask(server):
    body = {"content": "x"}
    for origin in ("http://evil.example", "https://127.0.0.1.evil.example", "http://127.0.0.1:1"):
        answer = server.ask("/tokenize", body, Origin=origin)
        assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
    for origin in (server.url, "https://code.example.org"):
        assert server.ask("/tokenize", body, Origin=origin).status == 200
