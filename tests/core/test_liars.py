"""A backend that breaks its contract is one error that names it and its plugin, on every road to its model."""

import json
from pathlib import Path

import pytest

from support import liars
from support.plugin_folder import codellm, install_plugin, python

CODE = Path(liars.__file__).read_text()
PLUGIN = "plugin 'liar' of liar 1.0"

GENERATING = ("generate", "stream", "batch", "events")
ROADS = {
    "id": GENERATING,
    "logprob": ("generate", "batch"),
    "sequence": GENERATING,
    "error": GENERATING,
    "endless": GENERATING,
    "ends": ("stream", "batch"),
    "run": ("stream", "batch"),
    "tokens": ("stream", "batch"),
    "score": ("score",),
    "blocks": ("distributions",),
    "logits": ("distributions",),
    "memory": ("memory",),
    "load": ("close",),
}
"""How the lies of a kind are come upon."""
LIES = [
    (backend.name, road)
    for backend in liars.BACKENDS
    for road in ROADS.get(backend.name.split("-")[1], ())
]  # fmt: skip
HONEST = [
    (backend.name, road)
    for backend in liars.BACKENDS
    if backend.name.startswith(("lie-honest", "lie-close"))
    for road in ("generate", "batch", "score", "distributions", "memory")
]

ASK = """
import json, sys, codellm
from codellm import asking
from codellm.errors import message
from codellm.plugins.exits import no_exit
from codellm.generation import complete, new_sequence

PARAMS = codellm.SamplingParams(max_tokens=3)

def texts(results):
    for result in results:
        if result.error is not None:
            raise result.error
    return "".join(result.text for result in results)

def events(model):
    found = complete(model, [new_sequence(model, "a", PARAMS)])
    return texts([event.result for event in found if event.result is not None])

ROADS = {
    "generate": lambda model: model.generate("a", PARAMS).text,
    "stream": lambda model: "".join(model.stream("a", PARAMS)),
    "batch": lambda model: texts(model.generate_batch(["a", "b"], PARAMS)),
    "events": events,
    "score": lambda model: [row.tolist() for row in asking.score(model, [[97, 98, 99, 97]])],
    "distributions": lambda model: sum(map(len, asking.distributions(model, [97, 98, 99, 97]))),
    "memory": lambda model: asking.memory(model).host > 0,
    "close": lambda model: None,
}

def ask(name, road):
    try:
        with no_exit(), codellm.load("codellm-demo", backend=name) as model:
            return "gave", repr(ROADS[road](model))
    except codellm.CodellmError as error:
        return type(error).__name__, message(error)
    except BaseException as error:
        return "raw " + type(error).__name__, message(error)

print(json.dumps([ask(name, road) for name, road in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("liar")
    install_plugin(path, "liar", CODE)
    return path


@pytest.fixture(scope="module")
def asked(folder):
    """What each backend gives, on each road; and what was written meanwhile."""
    done = python("-c", ASK, json.dumps(LIES + HONEST), path=folder)
    assert done.returncode == 0, done.stderr
    return dict(zip(LIES + HONEST, json.loads(done.stdout), strict=True)), done.stderr


def test_there_are_lies_of_every_kind():
    assert {name.split("-")[1] for name, _ in LIES} == set(ROADS)
    assert len({name for name, _ in LIES}) > 150


@pytest.mark.parametrize(("name", "road"), LIES)
def test_a_lie_is_one_error_that_names_backend_and_plugin(asked, name, road):
    kind, text = asked[0][name, road]
    assert kind == "BackendError", text
    assert f"backend '{name}'" in text
    assert PLUGIN in text


@pytest.mark.parametrize(
    ("name", "road", "what"),
    [
        ("id-negative", "batch", "its run yielded the id -1 (int), and an id is an int from 0 to 256"),
        ("id-numpy", "generate", "the id np.int64(97) (int64)"),
        ("id-true", "events", "the id True (bool)"),
        ("logprob-nan", "generate", "the log-probability nan (float), which is at most 0"),
        ("sequence-stranger", "stream", "a token of a sequence that it was not given"),
        ("sequence-counts", "generate", "wrote token_ids of a sequence itself"),
        ("error-text", "batch", "wrote 'out of luck' (str) as the error of a sequence, and must write an exception"),
        ("error-mute", "generate", "MutePlainError"),
        ("endless-late-tokens", "generate", "its run() does not end: 101 yields in a row brought no token"),
        ("ends-early", "batch", "ended its run before this sequence did"),
        ("tokens-text", "stream", "token_bytes(97) of its tokenizer gave 'a' (str), and must give bytes"),
        ("run-exit-middle", "stream", "failed while generating: SystemExit: 0 (raised in plugin 'liar'"),
        ("run-mute-first", "batch", "failed while generating: MuteError (raised in plugin 'liar'"),
        ("run-os-exit-last", "stream", "failed while generating: SystemExit: os._exit(0) (raised in"),
        ("score-list", "score", "score() of 4 ids gave list, and must give float32 [3]"),
        ("score-square", "score", "score() of 4 ids gave float32 [3, 1], and must give float32 [3]"),
        ("score-once-positive", "score", "score() of 4 ids gave 0.1, and a log-probability is at most 0"),
        ("score-nan", "score", "computed NaN"),
        ("score-fewer", "score", "score() of 1 entries gave 0"),
        ("blocks-few", "distributions", "gave 3 distributions for 4 ids"),
        ("blocks-narrow", "distributions", "gave float32 [2, 256], and must give float32 [2, 257]"),
        ("memory-none", "memory", "memory() gave NoneType, and must give a Memory"),
        ("load-no-info", "close", "its model: info is None (NoneType), which must be a ModelInfo"),
        ("load-encode-array", "close", "encode() is array([97]) (ndarray), which must be a list of ints"),
        ("load-context-zero", "close", "failed to load codellm-demo: ValueError: 'context_length' must be >= 1"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_lie(asked, name, road, what):
    assert what in asked[0][f"lie-{name}", road][1]


@pytest.mark.parametrize(("name", "road"), HONEST)
def test_what_keeps_the_contract_is_given(asked, name, road):
    score = {"double": -1.0, "rounded": pytest.approx(1e-6), "impossible": float("-inf")}.get(name.split("-")[-1], -1.0)
    kind, text = asked[0][name, road]
    assert kind == "gave", text
    if road == "score":
        assert eval(text, {"inf": float("inf")}) == [[score] * 3]
    else:
        assert text == {"generate": "'aaa'", "batch": "'aaaaaa'", "distributions": "4", "memory": "True"}[road]


def test_a_model_that_fails_to_close_loses_nothing_and_is_told(asked):
    for kind, what in (("exit", "SystemExit: 0"), ("mute", "MuteError"), ("os-exit", "SystemExit: os._exit(0)")):
        assert f"backend 'lie-close-{kind}' failed while closing: {what} (raised in {PLUGIN})" in asked[1]
    assert "Traceback" not in asked[1]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("generate", "a", "-b", "lie-id-negative"), "its run yielded the id -1"),
        (("generate", "a", "-b", "lie-endless-tokens", "--max-tokens", "2"), "its run() does not end"),
        (("generate", "a", "-b", "lie-run-exit-middle"), "SystemExit: 0"),
        (("generate", "a", "-b", "lie-load-os-exit"), "failed to load codellm-demo: SystemExit: os._exit(0)"),
        (("eval", "perplexity", "--limit", "1", "-b", "lie-score-positive"), "gave 5, and a log-probability is"),
        (("eval", "perplexity", "--limit", "1", "-b", "lie-score-mute"), "failed while scoring: MuteError"),
    ],
)
def test_a_command_ends_in_one_line(folder, arguments, what):
    done = codellm(*arguments, path=folder)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("codellm: ")]
    assert what in line
    assert PLUGIN in line
    assert "Traceback" not in done.stderr


def test_a_row_of_the_bench_is_refused_in_one_line(folder, tmp_path):
    arguments = ("--row", "lie-id-negative", "--row", "lie-memory-os-exit", "--row", "lie-honest", "--repeats", "1")
    done = codellm("bench", *arguments, "--output", str(tmp_path / "run"), path=folder)
    text = " ".join((done.stdout + done.stderr).split())
    assert "its run yielded the id -1 (int)" in text
    assert "failed while counting its memory: SystemExit: os._exit(0)" in text
    assert "Traceback" not in done.stderr
