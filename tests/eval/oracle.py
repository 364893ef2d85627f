"""A complete backend that knows HumanEval's answers: what a perfect model writes, and what a faulty one does.

Its tokens are bytes. Samples with an odd index are wrong; `-o wrong=N` makes every Nth problem wrong; `-o delay=S`
waits S seconds before each sequence; `-o fault=late` fails on the third sequence; `-o context=N` is its context.
Also a plugin as it stands.
"""

import time

import numpy as np

from codellm import hookimpl
from codellm.backend import Availability, Backend
from codellm.model import Memory, Model, ModelInfo
from codellm.sequence import Token
from codellm.tokenizer import Tokenizer
from codellm_eval.completion import model_prompt
from codellm_eval.problems import load_problems

WRONG = "\n    raise ValueError('wrong')\n\n\nprint('after')\n"
AFTER = "\n\ndef another():\n    pass\n"


class Bytes(Tokenizer):
    vocab_size, bos, eos, add_bos = 257, None, 256, False

    def encode(self, text, special=False):
        return list(text.encode())

    def token_bytes(self, id):
        return bytes([id]) if id < 256 else b""

    def special_id(self, token):
        return None


class Oracle(Model):
    """Scores every byte alike, so that its perplexity is 257 and its bits per byte are log2(257)."""

    def __init__(self, *, wrong=0, delay=0.0, fault="", context=4096, dummy=False, path=""):
        super().__init__()
        self.wrong, self.delay, self.fault, self.taken = wrong, delay, fault, 0
        self.tokenizer = Bytes()
        self.answers = {
            model_prompt(problem.prompt): (int(task.partition("/")[2]), "\n" + problem.canonical_solution)
            for task, problem in load_problems().items()
        }
        self.info = ModelInfo(
            backend="oracle", architecture="Oracle", parameters=0, weight_bytes=0, context_length=context,
            dtype="float32", scheme="f32", device="cpu", path=path, batch_size=3, dummy=dummy,
        )  # fmt: skip

    def answer(self, sequence):
        number, text = self.answers[bytes(sequence.prompt_ids).decode()]
        wrong = sequence.index % 2 == 1 or (self.wrong and number % self.wrong == 0)
        return (WRONG if wrong else text + AFTER).encode()

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

    def memory(self):
        return Memory(host=0, host_peak=0)

    def close(self):
        pass


class OracleBackend(Backend):
    name, formats, preference = "oracle", frozenset({"safetensors"}), 1

    def availability(self):
        return Availability(True)

    def schemes(self):
        return ()

    def load(self, spec, source):
        options = spec.options
        return Oracle(
            wrong=int(options.get("wrong", 0)),
            delay=float(options.get("delay", 0)),
            fault=options.get("fault", ""),
            context=int(options.get("context", 4096)),
            path=str(source.path),
        )


@hookimpl
def codellm_backends():
    return [OracleBackend()]
