"""What is counted of each sequence, however it ends."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.result import Result, Timing
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.serve.engine import Engine
from codellm.serve.job import Job
from codellm.serve.tally import INTER_TOKEN_SECONDS, Histogram, Tally
from support.script_model import ScriptModel


def test_a_sequence_is_counted_by_its_result():
    tally = Tally()
    sequence = Sequence(prompt_ids=[1, 2, 3], params=SamplingParams(), token_ids=[4, 5, 6], cached_tokens=2)
    tally.begin(sequence, 10.0)
    assert (tally.read().generated_tokens, tally.read().prompt_tokens) == (3, 0)
    result = Result("", (4, 5, 6), "length", Timing(11.0, (11.5, 11.75, 12.0), 12.0), cached_tokens=2)
    for _ in range(2):  # the second time it is not there any more
        tally.end(sequence, result)
        counts = tally.read()
        assert (counts.prompt_tokens, counts.cached_tokens, counts.prefix_hits) == (3, 2, 1)
        assert counts.generated_tokens == 3
        assert counts.finished == {"length": 1}
        assert counts.first_token.sum == 1.5
        assert counts.inter_token.sum == 0.5
        assert counts.inter_token.counts[INTER_TOKEN_SECONDS.index(0.25)] == 2


@given(st.lists(st.floats(0, 5) | st.sampled_from(INTER_TOKEN_SECONDS)))
def test_a_bucket_holds_what_is_not_above_its_bound(values):
    histogram = Histogram(INTER_TOKEN_SECONDS)
    for value in values:
        histogram.add(value)
    for index, bound in enumerate(INTER_TOKEN_SECONDS):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in values)
    assert sum(histogram.counts) == len(values)


class Failing(ScriptModel):
    """Its run fails at the third step."""

    def step(self, sequence, samplers):
        if len(sequence.token_ids) == 2:
            raise RuntimeError("out of order")
        return super().step(sequence, samplers)


def test_what_a_run_that_fails_leaves_is_counted_too():
    async def story():
        tally = Tally()
        engine = Engine(Failing("abcdef"), 4, tally)
        engine.start()
        job = Job([Sequence(prompt_ids=[1], params=SamplingParams())])
        engine.submit(job)
        with pytest.raises(Exception, match="out of order"):
            [event async for event in job.events()]
        engine.stop()
        assert await asyncio.to_thread(engine.join, 60)
        return tally.read()

    counts = asyncio.run(story())
    assert counts.finished == {"error": 1}
    assert (counts.prompt_tokens, counts.generated_tokens) == (1, 2)
    assert sum(counts.first_token.counts) == 0
