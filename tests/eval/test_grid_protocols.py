"""What the two protocols time, by a model that says when each of its tokens comes."""

import time

import pytest

from codellm import Token
from codellm.errors import BackendError
from codellm_eval.grid import protocols
from codellm_eval.grid.plan import GridPlan, Size
from support.script_model import ScriptModel


class Clocked(ScriptModel):
    """Its sequences get their first token one step after each other, as where prompts are computed in turns.

    Such a step takes 5 s, any other one 1 s. `in_turn`: a sequence begins once those before it have ended.
    """

    def __init__(self, *, in_turn=False, **how):
        super().__init__(context=4096, **how)
        self.in_turn = in_turn
        self.now = 0.0
        self.most = 0

    def run(self, sequences):
        with self.claim():
            waiting, running = list(sequences), []
            while waiting or running:
                first = bool(waiting) and not (self.in_turn and running)
                if first:
                    running.append(waiting.pop(0))
                self.now += 5.0 if first else 1.0
                self.most = max(self.most, len(running[0].token_ids))
                yield [Token(65 + len(each.token_ids) % 26, each) for each in running]
                running = [each for each in running if not each.finished]


@pytest.fixture
def clocked(monkeypatch):
    def make(**how):
        model = Clocked(**how)
        monkeypatch.setattr(time, "perf_counter", lambda: model.now)
        return model

    return make


def figures(model, batch_size, context=100, step=1e-9, **plan):
    size, asked = Size(batch_size, context), GridPlan(repeats=2, **plan)
    return protocols.measure(model, size, asked, lambda phase: None, lambda: step)


def test_a_step_of_decoding_is_one_of_the_whole_batch(clocked):
    model = clocked(slots=4)
    found = figures(model, 4, new_tokens=8)
    assert found["decode"].values == (1.0, 1.0)
    # four sequences end with their first token, so that nothing is generated beside a prompt
    assert found["prefill"].values == (20.0, 20.0)


def test_those_that_have_their_first_token_early_have_room_for_more(clocked):
    model = clocked(slots=4)
    plan = GridPlan(new_tokens=8)
    figures(model, 4, new_tokens=8)
    assert model.most <= 3 + 1 + 8 <= plan.room(Size(4, 100))
    assert plan.room(Size(4, 5120)) == 8 + 2 + 3 * 40
    assert plan.room(Size(1, 5120)) == 8 + 2


def test_sequences_that_run_one_after_the_other_are_no_batch(clocked):
    with pytest.raises(BackendError, match="so they do not run together"):
        figures(clocked(slots=2, in_turn=True), 2, new_tokens=8)


def test_too_few_slots_are_no_batch(clocked):
    with pytest.raises(BackendError, match="runs 2 sequences together, not 4"):
        figures(clocked(slots=2), 4)


def test_a_token_of_the_seed_s_protocol_is_a_pass_over_everything(clocked):
    found = figures(clocked(slots=2), 2, protocol="seed", new_tokens=4)
    assert found["token"].values == (10.0, 10.0)


def test_what_is_too_short_for_the_clock_has_no_figure(clocked):
    with pytest.raises(BackendError, match="by a clock that moves in steps of 20 ms"):
        figures(clocked(slots=1), 1, step=0.02, new_tokens=8)
