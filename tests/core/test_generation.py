import gc

import attrs
import pytest

from codellm import SamplingParams
from codellm.errors import BackendError, ContextLengthError, InvalidValueError, ModelBusyError, ModelClosedError
from codellm.generation import complete, new_sequence
from support.script_model import EOS, FIM, ScriptModel


def test_a_stream_is_the_result_in_pieces():
    model = ScriptModel("def f():\n\n  return né")
    stream = model.stream("x")
    pieces = list(stream)
    assert len(pieces) > 5
    assert "".join(pieces) == stream.result.text == model.generate("x").text == "def f():\n\n  return né"
    assert stream.result.finish_reason == "eos"
    assert stream.result.token_ids[-1] == EOS


def test_length_ends():
    result = ScriptModel("hello").generate("x", SamplingParams(max_tokens=3))
    assert (result.text, result.finish_reason, len(result.token_ids)) == ("hel", "length", 3)


def test_a_stop_string_ends_across_tokens_and_is_cut():
    result = ScriptModel("ab\n\nreturn x").generate("x", SamplingParams(stop=("\nret",)))
    assert (result.text, result.finish_reason) == ("ab\n", "stop")


def test_ignore_eos_goes_on():
    result = ScriptModel("hi").generate("x", SamplingParams(ignore_eos=True, max_tokens=7))
    assert result.text == "hihih"  # the end-of-text tokens count and show nothing
    assert len(result.token_ids) == 7


def test_a_fim_model_also_ends_at_the_next_file():
    model = ScriptModel(ids=[104, FIM["<file_sep>"], 105])
    assert model.generate("x").finish_reason == "eos"
    assert model.generate("x").text == "h"


def test_the_context_ends_a_sequence():
    result = ScriptModel("a" * 50, context=10).generate("12345678")
    assert (len(result.token_ids), result.finish_reason) == (2, "length")


def test_a_prompt_over_the_context_is_refused_before_the_backend():
    model = ScriptModel(context=8)
    with pytest.raises(ContextLengthError, match="8 tokens and the context is 8"):
        model.stream("12345678")
    assert model.steps == 0


def test_an_empty_prompt_is_the_end_of_text_token():
    assert new_sequence(ScriptModel(), "", SamplingParams()).prompt_ids == [EOS]
    with pytest.raises(InvalidValueError, match="empty"):
        new_sequence(ScriptModel(), [], SamplingParams())


def test_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(InvalidValueError, match="99999"):
        ScriptModel().generate([99999])


def test_a_batch_equals_singles_in_the_order_of_the_prompts():
    model = ScriptModel("hello", slots=3)
    params = SamplingParams(temperature=3.0, seed=5, max_tokens=9)
    prompts = ["a", "bb", "c", "dd", "e", "f"]
    batch = model.generate_batch(prompts, params)
    assert [result.token_ids for result in batch] == [model.generate(prompt, params).token_ids for prompt in prompts]


def test_a_prompt_given_twice_is_sampled_twice():
    params = SamplingParams(temperature=5.0, seed=5, max_tokens=12)
    one, two = ScriptModel().generate_batch(["a", "a"], params)
    assert one.token_ids != two.token_ids


def test_one_faulty_sequence_leaves_its_neighbours():
    good, long, nul, last = ScriptModel(context=20).generate_batch(["a", "x" * 30, "\0", "b"])
    assert (good.text, last.text) == ("hello", "hello")
    assert long.finish_reason == nul.finish_reason == "error"
    assert isinstance(long.error, ContextLengthError)
    assert "NUL" in str(nul.error)
    with pytest.raises(BackendError, match="NUL"):
        ScriptModel().generate("\0")


def test_a_second_run_finds_the_model_busy_until_the_first_is_dropped():
    model = ScriptModel()
    stream = model.stream("x")
    next(stream)
    with pytest.raises(ModelBusyError):
        model.generate("y")
    with pytest.raises(ModelBusyError):
        model.score([[1, 2]])
    del stream
    gc.collect()
    assert model.generate("y").text == "hello"


def test_a_closed_stream_has_a_cancelled_result():
    model = ScriptModel()
    with model.stream("x") as stream:
        next(stream)
    assert stream.result.finish_reason == "cancelled"
    assert stream.result.text == "h"
    stream.close()
    assert model.generate("y").text == "hello"


def test_a_closed_model_says_so():
    model = ScriptModel()
    model.close()
    with pytest.raises(ModelClosedError):
        model.generate("x")


def test_hundreds_refill_the_slots_in_order():
    model = ScriptModel("hi", slots=7)
    sequences = [new_sequence(model, f"{place}", SamplingParams()) for place in range(300)]
    ended = [event for event in complete(model, iter(sequences)) if event.result]
    assert [event.sequence for event in ended] == sequences
    assert model.steps <= 300 * 3 / 7 + 5  # the slots were kept full


def test_a_live_queue_may_have_nothing_now():
    model = ScriptModel("hi")

    def live():
        yield new_sequence(model, "a", SamplingParams())
        yield None
        yield None
        yield new_sequence(model, "b", SamplingParams())

    assert [event.result.text for event in complete(model, live()) if event.result] == ["hi", "hi"]


class Broken(ScriptModel):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def run(self, sequences):
        list(sequences)
        yield []
        if self.fault is not None:
            raise self.fault


def test_a_backend_that_fails_is_named():
    with pytest.raises(BackendError, match="'script' failed while generating: OSError: disk"):
        Broken(OSError("disk")).generate("x")


def test_a_backend_that_forgets_a_sequence_is_told():
    with pytest.raises(BackendError, match="ended its run before"):
        Broken(None).generate("x")


def test_timing_is_that_of_the_tokens():
    timing = ScriptModel("hello").generate("x").timing
    assert len(timing.token_times) == 6
    assert timing.start < timing.token_times[0] <= timing.token_times[-1] <= timing.end
    assert timing.ttft == timing.token_times[0] - timing.start
    assert sum(timing.itl) == pytest.approx(timing.tpot * 5)
    assert ScriptModel("hello").generate("x", SamplingParams(max_tokens=1)).timing.tpot is None


def test_log_probabilities_are_told_of_every_token_that_counts():
    model = ScriptModel("héllo")
    params = SamplingParams(logprobs=3, stop=("l",))
    sequences = [new_sequence(model, "x", params), new_sequence(model, "x", SamplingParams())]
    events = list(complete(model, sequences))
    asked, other = (next(one.result for one in events if one.sequence is of and one.result) for of in sequences)
    assert [one.id for one in asked.logprobs] == list(asked.token_ids)
    assert [one.logprobs for one in events if one.sequence is sequences[0]] == list(asked.logprobs)
    assert other.logprobs is None
    assert {one.logprobs for one in events if one.sequence is sequences[1]} == {None}
    for one in asked.logprobs:
        assert [id for id, _ in one.top] == [one.id, 0, 1]
        assert one.logprob == one.top[0][1] > one.top[1][1] == one.top[2][1]
    assert model.generate("x", attrs.evolve(params, logprobs=0)).logprobs[0].top == ()


class Silent(ScriptModel):
    """Knows of no log-probabilities, or tells what are none."""

    top = None

    def step(self, sequence, samplers):
        return [attrs.evolve(token, top=self.top) for token in super().step(sequence, samplers)]


@pytest.mark.parametrize(
    ("top", "told"),
    [
        (None, "backend 'script' tells no log-probabilities"),
        ((), "told 0 of the likeliest tokens, where 2 were asked for"),
        (((1, -1.0), (10**6, -2.0)), "what are no ids and log-probabilities"),
        (((1, -1.0), (2, float("nan"))), "what are no ids and log-probabilities"),
        (((1, 1.0), (2, -2.0)), "what are no ids and log-probabilities"),
    ],
)
def test_a_backend_that_tells_none_is_named_and_others_go_on(top, told):
    model = Silent("hello")
    model.top = top
    sequences = [new_sequence(model, "x", SamplingParams(logprobs=count)) for count in (2, None)]
    results = {event.sequence: event.result for event in complete(model, sequences) if event.result}
    asked, other = (results[one] for one in sequences)
    assert (asked.finish_reason, asked.token_ids) == ("error", ())
    assert told in str(asked.error)
    assert (other.text, other.error) == ("hello", None)
