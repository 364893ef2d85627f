"""Every field of `SamplingParams` is an option of the commands, in the conformance kit, and read by who draws or ends.

What fails here names the files to go to.
"""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from codellm.cli.generate import generate
from codellm.cli.infill import infill
from codellm.cli.options import sampling_params
from codellm.sampler import Sampler
from codellm.sampling import SamplingParams
from support.broken import BROKEN
from support.broken.fault import FAILS, MISHANDLES
from support.sampling_fields import DRAWN, ENDS, FIELDS, TELLS, Drawn, hold_draws, hold_result, lacking
from support.script_model import ScriptModel

LOGITS = np.log([0.1, 0.2, 0.3, 0.4]).astype(np.float32)
PROMPT = [3]
HOST = "codellm-core/src/codellm/sampler.py"

Planted = attrs.make_class(
    "Planted",
    {"frequency_penalty": attrs.field(default=0.0, type=float)},
    bases=(SamplingParams,),
    frozen=True,
    kw_only=True,
)
"""The parameters with one more, that nothing here knows."""


def choosing(sampler=Sampler):
    return lambda sequences: [sampler(one)(LOGITS).id for one in sequences]


def test_every_field_says_what_it_does():
    lacking(SamplingParams, FIELDS)
    assert set(FIELDS) == {field.name for field in attrs.fields(SamplingParams)}


@pytest.mark.parametrize("name", DRAWN)
def test_the_sampler_of_the_host_reads_it(name):
    hold_draws(name, choosing(), LOGITS, PROMPT, HOST)


@pytest.mark.parametrize("name", [*ENDS, *TELLS])
def test_core_ends_a_sequence_or_tells_of_it(name):
    hold_result(name, ScriptModel("hello"))


def test_every_field_has_a_backend_that_the_kit_fails():
    """That the kit fails each of these is what test_testing.py holds."""
    lacking(SamplingParams, MISHANDLES)
    assert set(MISHANDLES.values()) <= set(FAILS)


@pytest.mark.parametrize("name", DRAWN)
def test_a_sampler_that_breaks_a_field_is_told(name):
    broken = BROKEN[MISHANDLES[name]].model.sampler_type
    with pytest.raises(AssertionError, match=rf"(?s){name}.*codellm/sampler\.py"):
        hold_draws(name, choosing(broken), LOGITS, PROMPT, HOST)


def given(command, arguments, field, value):
    """What `command` makes of a field's option."""
    option = f"--{field.replace('_', '-')}"
    texts = [option] if value is True else [option, *(value if isinstance(value, tuple) else [str(value)])]
    return getattr(sampling_params(command.make_context(command.name, [*arguments, *texts]).params), field)


def options(command):
    return {param.name for param in command.params}


COMMANDS = pytest.mark.parametrize(
    ("command", "arguments"), [(generate, ["x"]), (infill, ["x.py"])], ids=["generate", "infill"]
)


@COMMANDS
@pytest.mark.parametrize("name", FIELDS)
def test_a_command_has_an_option_for_it(command, arguments, name):
    lacking(SamplingParams, options(command))
    value = FIELDS[name].value
    assert given(command, arguments, name, value) == value


@pytest.mark.parametrize("known", [FIELDS, MISHANDLES, options(generate), options(infill)])
def test_a_field_that_is_planted_is_missed_by_name(known):
    with pytest.raises(AssertionError, match=r"(?s)frequency_penalty: .*sampling_fields\.py.*cli/options\.py.*broken/"):
        lacking(Planted, known)


def test_a_planted_field_that_no_sampler_reads_is_told():
    entry = Drawn(5.0, lambda ids, *_: set(ids) == {2}, {})
    with pytest.raises(AssertionError, match=r"(?s)frequency_penalty=5.0 does nothing.*codellm/sampler\.py"):
        hold_draws("frequency_penalty", choosing(), LOGITS, PROMPT, HOST, entry, Planted)
