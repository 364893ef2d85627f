"""By which names a server is asked, and from which pages."""

import signal

import pytest

from support.plugin_folder import codellm
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


PAGE = "http://localhost:3000"


@pytest.fixture(scope="module")
def sharing():
    with serving("--cors-origin", f"{PAGE}/", "--api-key", "k", key="k") as server:
        yield server


def test_a_page_that_is_named_may_ask_and_read(sharing):
    answer = sharing.ask("/tokenize", {"content": "x"}, Origin=PAGE)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    refused = sharing.ask("/tokenize", {"content": 1}, Origin=PAGE)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (400, PAGE)


def test_its_browser_is_told_beforehand(sharing):
    asks = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    answer = sharing.ask("/v1/completions", method="OPTIONS", **asks)
    assert answer.status == 200
    assert "x-stainless-lang" in answer.headers["Access-Control-Allow-Headers"]
    assert sharing.ask("/v1/completions", method="OPTIONS", **asks | {"Origin": "http://localhost:3001"}).status == 400


def test_other_pages_may_not(sharing):
    answer = sharing.ask("/tokenize", {"content": "x"}, Origin="http://localhost:3001")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (403, None)


def test_every_page_may_where_that_is_said():
    with serving("--cors-origin", "*") as server:
        answer = server.ask("/tokenize", {"content": "x"}, Origin="https://anywhere.example")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")


@pytest.mark.parametrize(
    "text", ["localhost:3000", "http://", "http://a/b", "ftp://a", "null", "http://a:x", "http://u@a"]
)
def test_what_is_no_origin_is_refused(text):
    ended = codellm("serve", "--cors-origin", text)
    assert ended.returncode == 2
    assert "is no origin" in ended.stderr


@pytest.mark.parametrize("told", [True, False])
def test_the_log_tells_prompts_where_that_is_asked_for_alone(told):
    with serving(*["--log-prompts"] * told) as server:
        server.ask("/tokenize", {"content": "a secret\n\u00e9"})
        server.stop(signal.SIGTERM)
    log = "".join(server.log)
    assert ('/tokenize asks {"content": "a secret\\n\\u00e9"}' in log) == told
    assert ("secret" in log) == told
