"""The page at `/`, as people see it: in Chromium, by mouse and keyboard, on a desktop and on a phone."""

import base64
import hashlib
import re
import time

import pytest

from support import chromium
from support.chats import with_template
from support.serving import serving

WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def server():
    with serving("-m", "codellm-demo", "--batch-size", "2") as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with chromium.there("the page") as running:
        yield running


def opened(browser, server, task="completion", width=1280, **options):
    browser.open(f"{server.url}/", width, **options)
    until(browser, "at('model').value || at('said').textContent")
    browser.value(f"document.querySelector('[value={task}]').click()")


def until(browser, expression):
    """Wait until it is true, and give its value."""
    end = time.monotonic() + chromium.PATIENCE
    while not (found := browser.value(expression)):
        assert time.monotonic() < end, f"{expression} is never true; {browser.complaints()}"
        time.sleep(0.02)
    return found


def press(browser, key, modifiers=0):
    browser.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, modifiers=modifiers)
    browser.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, modifiers=modifiers)


def said(browser):
    """What it says once nothing runs any more."""
    return until(browser, "running === null && at('said').textContent")


def run(browser):
    browser.value("at('run').click()")
    return said(browser)


def test_it_is_served_to_everyone_and_may_run_nothing_else():
    with serving("-m", "codellm-demo", key="secret") as server:
        server.key = None
        answer = server.ask("/")
        assert server.ask("/v1/models").status == 401
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    text, policy = answer.body.decode(), answer.headers["Content-Security-Policy"]
    for tag in ("style", "script"):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"\bhttps?:|\bsrc=|\bstyle=|\bon\w+=|Storage|cookie", text)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_it_fits_the_window_and_nothing_complains(browser, server, width, dark):
    for task in ("completion", "infill", "chat"):
        opened(browser, server, task, width, dark=dark)
        if task != "chat":
            assert run(browser) == "Done."
        assert browser.value("document.documentElement.scrollWidth") == browser.value("innerWidth") == width
        assert browser.complaints() == []
        assert {address.removeprefix(server.url) for address in browser.requested()} <= {
            "/", "/v1/models", "/completion", "/infill",
        }  # fmt: skip


def test_a_completion_is_what_the_server_says(browser, server):
    opened(browser, server)
    assert run(browser) == "Done."
    asked = {"prompt": browser.value("at('prompt').value"), "n_predict": 96, "temperature": 0}
    answer = server.ask("/completion", asked).json
    assert browser.value("at('text').textContent") == asked["prompt"] + answer["content"]
    assert browser.value("at('generated').textContent") == str(answer["tokens_predicted"])
    assert browser.value("at('read').textContent") == str(answer["tokens_evaluated"])
    assert float(browser.value("at('speed').textContent")) > 0
    assert browser.value("at('first').textContent").endswith("s")


def test_an_infill_stands_between_its_texts_and_in_its_block(browser, server):
    opened(browser, server, "infill")
    assert run(browser) == "Done."
    before, after = (browser.value(f"at('{name}').value") for name in ("before", "after"))
    asked = {"input_prefix": before, "input_suffix": after, "n_predict": 96, "n_indent": 4}
    content = server.ask("/infill", asked).json["content"]
    assert browser.value("at('text').textContent") == before + content + after
    assert content.strip()
    assert [browser.value(f"indent({text!r})") for text in ("", "a\n  b", "    a\n\n", "a\n    ")] == [0, 2, 4, 0]


def test_a_conversation_goes_on(browser, tmp_path):
    with serving("-m", str(with_template(tmp_path))) as server:
        opened(browser, server, "chat")
        browser.value("at('tokens').value = 8")
        assert run(browser).startswith("Done")
        assert browser.value("turns.map((turn) => turn.role).join()") == "user,assistant"
        assert int(browser.value("at('generated').textContent")) >= 1
        assert run(browser).startswith("Done")
        assert browser.value("turns.map((turn) => turn.role).join()") == "user,assistant,user,assistant"
        browser.value("at('clear').click()")
        assert browser.value("turns.length + at('text').childElementCount") == 0


def test_the_queue_is_seen_and_how_it_empties(browser, server):
    work = {"prompt": "x", "n": 5, "max_tokens": 1500, "ignore_eos": True}
    with server.streaming("/v1/completions", work) as events:
        next(events)
        opened(browser, server)
        assert browser.value("at('queue').textContent") == "2 / 3"
    until(browser, "at('queue').textContent === '0 / 0'")
    assert run(browser) == "Done."
    assert browser.complaints() == []


def test_what_the_server_refuses_is_said(browser, server):
    opened(browser, server, "chat")
    assert "no chat template" in run(browser)
    assert browser.value("at('said').className") == "bad"
    assert browser.value("turns.length") == 0


def test_the_keyboard_is_enough(browser, server):
    opened(browser, server)
    browser.value("document.activeElement.blur()")
    seen = []
    for _ in range(8):
        press(browser, "Tab")
        seen.append(browser.value("document.activeElement.id || document.activeElement.value"))
    assert seen == ["model", "key", "completion", "prompt", "tokens", "temperature", "run", "text"]
    unnamed = "[...document.querySelectorAll('input, select, textarea')].filter((one) => !one.labels.length).length"
    assert browser.value(unnamed) == 0
    browser.value("at('prompt').focus()")
    press(browser, "Enter", modifiers=2)
    assert said(browser) == "Done."
    browser.value("at('tokens').value = 100000, at('prompt').value = 'def f(n):\\n', at('prompt').focus()")
    press(browser, "Enter", modifiers=2)
    assert browser.value("running !== null")
    press(browser, "Escape")
    assert said(browser) == "Stopped."
    assert browser.value("at('run').disabled") is False


def test_a_key_is_asked_for_and_kept_nowhere(browser):
    with serving("-m", "codellm-demo", key="secret") as server:
        opened(browser, server)
        assert "API key" in browser.value("at('said').textContent")
        browser.value("at('key').value = 'secret', at('key').dispatchEvent(new Event('change'))")
        until(browser, "at('model').value")
        assert run(browser) == "Done."
        assert browser.value("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        opened(browser, server)
        assert browser.value("at('key').value") == ""
    assert "secret" not in "".join(server.log)
