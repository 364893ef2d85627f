"""A plugin whose backends each do one thing that core must refuse, by name: `lie-` and the kind.

Tests install this file as the plugin `liar`, so that its frames are a plugin's.
"""

from __future__ import annotations

import asyncio
import os

import attrs
import numpy as np

from codellm import Backend, ByteTokenizer, CodellmError, Memory, Model, ModelInfo, Sequence, Token, hookimpl

BACKENDS: list[Backend] = []
SIZE = ByteTokenizer.vocab_size


class MuteError(BaseException):
    """Says nothing, by raising; and is no Exception, as those of Rust are none."""

    def __str__(self):
        raise MuteError

    __repr__ = __str__


class MutePlainError(Exception):
    """The same, as an Exception."""

    def __str__(self):
        raise MuteError


class OwnError(CodellmError):
    """Calls itself one of core's, and its end a good one."""

    exit_code = 0

    def __str__(self):
        raise MuteError


def raising(error):
    """A method that raises `error`; what is no error is a call that does not come back."""

    def method(self, *_, **__):
        if isinstance(error, int):
            os._exit(error)
        raise error

    return method


ERRORS = {
    "exit": SystemExit(0),
    "os-exit": 0,
    "mute": MuteError(),
    "mute-plain": MutePlainError(),
    "generator-exit": GeneratorExit(),
    "cancelled": asyncio.CancelledError("now"),
    "recursion": RecursionError("too deep"),
    "pipe": BrokenPipeError(32, "Broken pipe"),
    "eof": EOFError("no more"),
}
"""What the methods raise; an int is os._exit."""


class Honest(Model):
    """Says `a` for ever."""

    def __init__(self):
        self.tokenizer = ByteTokenizer()
        self.info = ModelInfo(
            backend=self.name, architecture="liar", parameters=1, weight_bytes=4, context_length=64, batch_size=2
        )

    def run(self, sequences):
        with self.claim():
            yield from self.steps(list(sequences))

    def steps(self, live):
        while any(not one.finished for one in live):
            yield self.step(live)

    def step(self, live):
        return [Token(97, one) for one in live]

    def score(self, batch):
        return [self.row(len(ids) - 1) for ids in batch]

    def row(self, count):
        return np.full(count, -1.0, np.float32)

    def logits(self, ids):
        return np.zeros(SIZE, np.float32)


def lie(kind, **methods):
    """Add the backend `lie-KIND`, whose model has these methods in place of an honest one's."""
    name = f"lie-{kind}"
    model = type("Liar", (Honest,), {"name": name, **methods})

    def load(self, spec, source):
        return model()

    fields = {"name": name, "formats": frozenset({"safetensors"}), "preference": -1, "load": load}
    BACKENDS.append(type("LiarBackend", (Backend,), fields)())


def tokens(make):
    """A step whose tokens `make` makes of each sequence."""
    return lambda self, live: [make(one) for one in live]


for kind, what in {
    "negative": -1,
    "huge": 10**9,
    "just-over": SIZE,
    "numpy": np.int64(97),
    "numpy-array": np.array(97),
    "text": "97",
    "bytes": b"a",
    "true": True,
    "float": 97.0,
    "none": None,
    "mute": MutePlainError(),
}.items():
    lie(f"id-{kind}", step=tokens(lambda one, what=what: Token(what, one)))

for kind, logprob in {
    "positive": 0.5,
    "nan": float("nan"),
    "text": "-1",
    "huge": 1e30,
    "infinite": float("inf"),
}.items():
    lie(f"logprob-{kind}", step=tokens(lambda one, logprob=logprob: Token(97, one, logprob)))


def stranger(one):
    return Token(97, Sequence(prompt_ids=one.prompt_ids, params=one.params))


def counting(one):
    one.token_ids.append(97)
    return Token(97, one)


def finishing(one):
    one.finished = True
    return Token(97, one)


def failing(error):
    def fail(one):
        one.error = error
        return Token(97, one)

    return fail


lie("sequence-stranger", step=tokens(stranger))
lie("sequence-copy", step=tokens(lambda one: Token(97, attrs.evolve(one))))
lie("sequence-none", step=tokens(lambda one: Token(97, None)))
lie("sequence-list", step=tokens(lambda one: Token(97, [])))
lie("sequence-counts", step=tokens(counting))
lie("sequence-finishes", step=tokens(finishing))
lie("error-text", step=tokens(failing("out of luck")))
lie("error-exit", step=tokens(failing(SystemExit(0))))
lie("error-mute", step=tokens(failing(MutePlainError())))
lie("error-class", step=tokens(failing(ValueError)))


def for_ever(step):
    def steps(self, live):
        while True:
            yield step(live)

    return steps


def after_the_end(step):
    def steps(self, live):
        yield from Honest.steps(self, live)
        yield from for_ever(step)(self, live)

    return steps


lie("endless-tokens", steps=for_ever(lambda live: [Token(97, one) for one in live]))
lie("endless-nothing", steps=for_ever(lambda live: []))
lie("endless-after", steps=after_the_end(lambda live: []))
lie("endless-late-tokens", steps=after_the_end(lambda live: [Token(97, one) for one in live]))
lie("endless-one", steps=for_ever(lambda live: [Token(97, live[0])]))
lie("ends-at-once", steps=lambda self, live: iter(()))
lie("ends-early", steps=lambda self, live: iter([[Token(97, one) for one in live]]))
lie("run-list", run=lambda self, sequences: [[]])
lie("run-none", run=lambda self, sequences: None)
lie("run-tuples", run=lambda self, sequences: iter([(1, 2)]))


def broken_at(error, when):
    """A run that raises before its first step, between two, or at its end."""

    def steps(self, live):
        if when != "first":
            yield self.step(live)
        if when == "last":
            yield from Honest.steps(self, live)
        raising(error)(self)

    return steps


for kind, error in ERRORS.items():
    for when in ("first", "middle", "last"):
        lie(f"run-{kind}-{when}", steps=broken_at(error, when))
    lie(f"run-{kind}-call", run=raising(error))
    lie(f"score-{kind}", score=raising(error))
    lie(f"memory-{kind}", memory=raising(error))
    lie(f"logits-{kind}", logits=raising(error))


def wrong_rows(make):
    return lambda self, batch: [make(len(ids) - 1) for ids in batch]


for kind, make in {
    "list": lambda count: [-1.0] * count,
    "longer": lambda count: np.full(count + 1, -1.0, np.float32),
    "square": lambda count: np.full((count, 1), -1.0, np.float32),
    "half": lambda count: np.full(count, -1.0, np.float16),
    "whole": lambda count: np.full(count, -1, np.int64),
    "objects": lambda count: np.full(count, None),
    "positive": lambda count: np.full(count, 5.0, np.float32),
    "once-positive": lambda count: np.append(np.full(count - 1, -1.0, np.float32), np.float32(0.1)),
    "nan": lambda count: np.full(count, np.nan, np.float32),
    "infinite": lambda count: np.full(count, np.inf, np.float32),
    "none": lambda count: None,
    "number": lambda count: -1.0,
}.items():
    lie(f"score-{kind}", score=wrong_rows(make))
lie("score-fewer", score=lambda self, batch: [])
lie("score-more", score=lambda self, batch: [self.row(len(batch[0]) - 1)] * (len(batch) + 1))
lie("score-generator", score=lambda self, batch: (self.row(len(ids) - 1) for ids in batch))
lie("score-nothing", score=lambda self, batch: None)


def blocks(*shapes, fill=-6.0, kind=np.float32):
    return lambda self, ids, start=0: iter([np.full(shape, fill, kind) for shape in shapes])


lie("blocks-flat", distributions=blocks(SIZE))
lie("blocks-narrow", distributions=blocks((2, SIZE - 1), (2, SIZE - 1)))
lie("blocks-few", distributions=blocks((3, SIZE)))
lie("blocks-many", distributions=blocks((3, SIZE), (3, SIZE)))
lie("blocks-none", distributions=blocks())
lie("blocks-positive", distributions=blocks((4, SIZE), fill=1.0))
lie("blocks-nan", distributions=blocks((4, SIZE), fill=np.nan))
lie("blocks-half", distributions=blocks((4, SIZE), kind=np.float16))
lie("blocks-lists", distributions=lambda self, ids, start=0: iter([[[0.0] * SIZE] * 4]))
lie("blocks-number", distributions=lambda self, ids, start=0: 5)
lie("logits-short", logits=lambda self, ids: np.zeros(5, np.float32))
lie("logits-nan", logits=lambda self, ids: np.full(SIZE, np.nan, np.float32))
lie("memory-none", memory=lambda self: None)
lie("memory-tuple", memory=lambda self: (1, 2))
lie("memory-negative", memory=lambda self: Memory(host=-1, host_peak=1))
lie("memory-float", memory=lambda self: Memory(host=1.5, host_peak=1))


def model_with(**attributes):
    def init(self):
        Honest.__init__(self)
        for name, value in attributes.items():
            setattr(self, name, value)

    return init


def tokenizer_with(**attributes):
    return model_with(tokenizer=type("Tokens", (ByteTokenizer,), attributes)())


def info_with(**changes):
    def init(self):
        Honest.__init__(self)
        self.info = attrs.evolve(self.info, **changes)

    return init


lie("load-no-info", __init__=lambda self: setattr(self, "tokenizer", ByteTokenizer()))
lie("load-no-tokenizer", __init__=lambda self: setattr(self, "info", None))
lie("load-info-dict", __init__=model_with(info={"backend": "x"}))
lie("load-context-zero", __init__=info_with(context_length=0))
lie("load-context-text", __init__=info_with(context_length="64"))
lie("load-batch-zero", __init__=info_with(batch_size=0))
lie("load-backend-none", __init__=info_with(backend=None))
lie("load-parameters-float", __init__=info_with(parameters=1.5))
lie("load-tokenizer-function", __init__=model_with(tokenizer=lambda text: [1]))
lie("load-vocabulary-none", __init__=tokenizer_with(vocab_size=None))
lie("load-vocabulary-zero", __init__=tokenizer_with(vocab_size=0))
lie("load-encode-text", __init__=tokenizer_with(encode=lambda self, text, special=False: text))
lie("load-encode-array", __init__=tokenizer_with(encode=lambda self, text, special=False: np.array([97])))
lie("load-encode-over", __init__=tokenizer_with(encode=lambda self, text, special=False: [SIZE]))
lie("load-encode-exit", __init__=tokenizer_with(encode=raising(SystemExit(0))))
lie("load-bytes-text", __init__=tokenizer_with(token_bytes=lambda self, one: "a"))
lie("load-bytes-mute", __init__=tokenizer_with(token_bytes=raising(MuteError())))
for kind, error in ERRORS.items():
    lie(f"load-{kind}", __init__=raising(error))


def only_later(error):
    """Bytes of what core looks at when it loads, and no others."""

    def token_bytes(self, id):
        if id == 97:
            raising(error)(self)
        return ByteTokenizer.token_bytes(self, id)

    return token_bytes


lie("tokens-exit", __init__=tokenizer_with(token_bytes=only_later(SystemExit(0))))
lie("tokens-mute", __init__=tokenizer_with(token_bytes=only_later(MuteError())))
lie("tokens-text", __init__=tokenizer_with(token_bytes=lambda self, one: "a" if one == 97 else bytes([one % 256])))
lie("tokens-prompt-exit", __init__=tokenizer_with(prompt_ids=raising(SystemExit(0))))
lie("tokens-special-exit", __init__=tokenizer_with(special_id=raising(SystemExit(0))))


def ahead(self, live):
    for _ in range(8):
        yield self.step(live)


lie("honest")
lie("honest-double", row=lambda self, count: np.full(count, -1.0, np.float64))
lie("honest-impossible", row=lambda self, count: np.full(count, -np.inf, np.float32))
lie(
    "honest-rounded",
    row=lambda self, count: np.full(count, 1e-6, np.float32),
    step=tokens(lambda one: Token(97, one, 1e-7)),
)
lie("honest-ahead", steps=ahead)
lie("close-exit", close=raising(SystemExit(0)))
lie("close-mute", close=raising(MuteError()))
lie("close-os-exit", close=raising(0))


@hookimpl
def codellm_backends():
    return BACKENDS
