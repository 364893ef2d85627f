"""A chat template is a program of others: whatever it does, the prompt comes, or one line that says what is wrong."""

import gc
import threading

import psutil
import pytest

from codellm.chat_template import LONGEST, ChatTemplate, Limits
from codellm.errors import BackendError, InvalidValueError, ModelFileError

HI = [{"role": "user", "content": "hi"}]
SMALL = Limits(memory=1 << 28, seconds=1)
LOOP = "{% for i in range(99999) %}"
SLOW = {
    "loops": LOOP * 3 + "{% endfor %}" * 3,
    "loops that take a long time to write nothing": "{% set x = lipsum(n=10**8) %}",
}
LARGE = {
    "a string that doubles": "{% set ns = namespace(s='x') %}"
    + LOOP
    + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "a product": "{{ 'x' * 10**12 }}",
    "a width": "{{ '%1000000000d' % 1 }}",
    "another width": "{{ '{:>1000000000}'.format(1) }}",
    "output": LOOP * 2 + "a longer line of output than any\n" + "{% endfor %}" * 2,
}
BROKEN = {
    "a range": ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
    "recursion": ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "recursion"),
    "nesting": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "recursion"),
    "nested blocks": ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "recursion"),
    "no jinja": ("{% for message in messages %}", "TemplateSyntaxError"),
    "no such name": ("{{ nobody.there }}", "UndefinedError"),
    "an attribute": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "an attribute by format": ("{{ '{0.__class__.__mro__}'.format(messages) }}", "unsafe"),
    "a function's globals": ("{{ strftime_now.__globals__['json'] }}", "unsafe"),
    "a change of the messages": ("{{ messages.append(1) }}", "unsafe"),
    "a file": ("{% include '/etc/passwd' %}", "no loader"),
    "a long prompt": ("{{ 'x' * 20000000 }}", "20000000 characters"),
    "its own length": ("x" * (LONGEST + 1), "characters, more than"),
    "lines of a message": ("{{ raise('\n\x1b[31m') }}", "UndefinedError"),
}


@pytest.fixture
def made():
    """Templates, whose processes are gone in the end."""
    templates = []

    def make(text, limits=SMALL, **tokens):
        templates.append(ChatTemplate(text, tokens, "the model tiny", limits))
        return templates[-1]

    yield make
    for template in templates:
        template.close()


def refused(template, words, kind=ModelFileError):
    with pytest.raises(kind, match=words) as error:
        template.render(HI)
    assert "the chat template of the model tiny" in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW.keys())
def test_processor_time_is_bounded(made, text):
    refused(made(text), "takes more than 1 seconds of processor time")


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE.keys())
def test_memory_is_bounded(made, text):
    refused(made(text, Limits(memory=1 << 28, seconds=60)), r"takes more than 0\.25 GiB of memory")


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_what_fails_is_one_line(made, text, words):
    refused(made(text, Limits(memory=1 << 28, seconds=60)), words)


def test_a_template_refuses_in_its_own_words(made):
    template = made("{{ raise_exception('one\n\x1b[31mtwo') }}")
    refused(template, r"refuses: one\\n\\x1b\[31mtwo", InvalidValueError)
    refused(template, "refuses", InvalidValueError)


def test_after_a_template_s_end_the_next_prompt_is_another_process_s(made):
    template = made("{% if messages|length > 1 %}" + SLOW["loops"] + "{% endif %}{{ messages[0].content }}")
    first = template.render(HI)
    with pytest.raises(ModelFileError, match="processor time"):
        template.render(HI * 2)
    assert template.render(HI) == first == "hi"


def test_processor_time_counts_for_each_prompt_by_itself(made):
    template = made("{% for i in range(99999) %}{% for j in range(20) %}{% endfor %}{% endfor %}done")
    assert {template.render(HI) for _ in range(12)} == {"done"}


def test_what_a_template_counts_on_is_there(made):
    text = (
        "{{ bos_token }}{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}\n"
        "{%- generation %}{{ messages | tojson }}{% endgeneration %}{{ strftime_now('%%') }}{{ eos_token }}"
        "{{ tools is none and documents is none }}{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}"
    )
    assert made(text, bos_token="<s>").render(HI) == '<s>13[{"role": "user", "content": "hi"}]%True2'
    said = made("{{ messages[0].content | tojson }}").render([{"role": "user", "content": "é<\ud800"}])
    assert said == '"é<\ud800"'


def test_it_is_asked_by_many_threads(made):
    template = made("{{ messages[0].content }}")
    found = {}

    def ask(number):
        found[number] = {template.render([{"role": "user", "content": f"{number}"}]) for _ in range(20)}

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {f"{number}"} for number in range(8)}


def test_its_process_ends_with_it():
    template = ChatTemplate("x", {})
    template.render(HI)
    process = template._child._process.pid
    template.close()
    template.close()
    assert not psutil.pid_exists(process)
    assert template.render(HI) == "x"
    process = template._child._process.pid
    del template
    gc.collect()
    assert not psutil.pid_exists(process)


def test_a_process_that_cannot_be_started_is_told(made, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nobody/python")
    with pytest.raises(BackendError, match="cannot start a process for the chat template"):
        made("x").render(HI)


def test_a_process_that_somebody_kills_is_told_and_the_next_one_answers(made):
    template = made("x")
    template.render(HI)
    template._child._process.kill()
    with pytest.raises(BackendError, match="was killed"):
        template.render(HI)
    assert template.render(HI) == "x"
