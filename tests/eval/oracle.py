"""A complete backend that knows HumanEval's answers: what a perfect model writes, and what a faulty one does.

Its tokens are bytes. Samples with an odd index are wrong; `-o wrong=N` makes every Nth problem wrong; `-o delay=S`
waits S seconds before each sequence; `-o fault=late` fails on the third sequence; `-o context=N` is its context;
`-o decorated=yes` has a decorator stand before what follows the function. What must not be a setting of the run stands
in the environment: ORACLE_DELAY, ORACLE_FAULT, also `load`, and ORACLE_LOG, the file where it writes which sequences it
was asked for. Also a plugin as it stands.
"""

import os
import time
from pathlib import Path

import numpy as np

from codellm import Backend, ByteTokenizer, Model, ModelInfo, Token, hookimpl
from codellm.errors import ModelFileError
from codellm_eval.humaneval.completion import model_prompt
from codellm_eval.humaneval.problems import load_problems

WRONG = "\n    raise ValueError('wrong')\n\n\nprint('after')\n"
AFTER = "\n\ndef another():\n    pass\n"
DECORATED = "\n\n@nothing" + AFTER[1:]


class Oracle(Model):
    """Scores every byte alike, so that its perplexity is 257 and its bits per byte are log2(257)."""

    def __init__(self, *, wrong=0, delay=0.0, fault="", context=4096, after=AFTER, dummy=False, path=""):
        self.wrong, self.delay, self.fault, self.after, self.taken = wrong, delay, fault, after, 0
        self.tokenizer = ByteTokenizer()
        self.answers = {
            model_prompt(problem.prompt): (int(task.partition("/")[2]), "\n" + problem.canonical_solution)
            for task, problem in load_problems().items()
        }
        self.info = ModelInfo(
            backend="oracle", architecture="Oracle", parameters=0, weight_bytes=0, context_length=context,
            path=path, batch_size=3, dummy=dummy,
        )  # fmt: skip

    def answer(self, sequence):
        number, text = self.answers[bytes(sequence.prompt_ids).decode()]
        if "ORACLE_LOG" in os.environ:
            with Path(os.environ["ORACLE_LOG"]).open("a") as log:
                log.write(f"HumanEval/{number} {sequence.index}\n")
        wrong = sequence.index % 2 == 1 or (self.wrong and number % self.wrong == 0)
        return (WRONG if wrong else text + self.after).encode()

    def run(self, sequences):
        with self.claim():
            for sequence in sequences:
                self.taken += 1
                time.sleep(self.delay)
                if self.fault == "late" and self.taken == 3:
                    sequence.error = RuntimeError("the third sequence is broken")
                    continue
                for byte in self.answer(sequence):
                    if sequence.finished:
                        break
                    yield [Token(byte, sequence)]
                if not sequence.finished:
                    yield [Token(256, sequence)]

    def score(self, batch):
        with self.claim():
            return [np.full(len(ids) - 1, -np.log(257), np.float32) for ids in batch]

    def logits(self, ids):
        return np.zeros(257, np.float32)


class OracleBackend(Backend):
    name, formats, preference = "oracle", frozenset({"safetensors"}), 1

    def load(self, spec, source):
        options = spec.options
        if os.environ.get("ORACLE_FAULT") == "load":
            raise ModelFileError("cannot load")
        return Oracle(
            wrong=int(options.get("wrong", 0)),
            delay=float(options.get("delay", os.environ.get("ORACLE_DELAY", "0"))),
            fault=options.get("fault", os.environ.get("ORACLE_FAULT", "")),
            context=int(options.get("context", 4096)),
            after=DECORATED if "decorated" in options else AFTER,
            path=str(source.path),
        )


@hookimpl
def codellm_backends():
    return [OracleBackend()]
