"""What the name of a scheme, and its use of a calibration text, decide."""

from typing import get_args

import pytest

from codellm import Scheme
from codellm.scheme import PRECISIONS, CalibrationUse, is_quantized


@pytest.mark.parametrize("scheme", [None, *PRECISIONS.values()])
def test_an_original_and_a_change_of_precision_are_not_quantized(scheme):
    assert not is_quantized(scheme)


@pytest.mark.parametrize("scheme", ["q8_0", "bnb-nf4", "gptq-int4", "acme4"])
def test_any_other_scheme_is(scheme):
    assert is_quantized(scheme)


def test_a_scheme_takes_a_calibration_text_unless_it_says_none():
    uses = get_args(CalibrationUse)
    schemes = [Scheme(name="acme4", bits=4.0, applies="file", calibration=use) for use in uses]
    assert [scheme.takes_calibration for scheme in schemes] == [use != "none" for use in uses]
