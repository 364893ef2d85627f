"""Backends that break text, streams and special tokens."""

from __future__ import annotations

import attrs

from codellm.errors import InvalidValueError
from codellm.fim import FimIds
from support.broken.fault import fails
from support.sound_backend import EOS, SPECIAL, SoundModel, SoundTokenizer


@fails("Both are built on run()", "test_a_stream_is_the_result_in_pieces")
@fails("in a batch and", "test_stop_strings_end_sequences_of_a_batch")
class HasItsOwnGenerate(SoundModel):
    """Has a `generate` of its own, which tidies up."""

    def generate(self, prompt, params=None):
        result = super().generate(prompt, params)
        return attrs.evolve(result, text=result.text.upper())


@fails("yielded all 32 tokens at once", "test_tokens_come_as_they_are_computed")
class YieldsAtTheEnd(SoundModel):
    """Collects 32 tokens of a sequence that runs alone."""

    def step(self, running, states):
        step = super().step
        alone = len(running) == 1 and running[0].params.repetition_penalty == 1
        return [token for _ in range(32 if alone else 1) for token in step(running, states)]


@fails("decoding single tokens to str and back", "test_characters_across_tokens_stay_whole")
@fails("look at token_bytes", "test_a_stop_string_may_be_any_unicode")
@fails("came back as", "test_text_survives_encoding")
class DecodesSingleTokens(SoundTokenizer):
    """Makes text of each token by itself."""

    def token_bytes(self, id):
        return super().token_bytes(id).decode(errors="replace").encode()


@fails("came back as", "test_text_survives_encoding", "test_special_strings_in_text_stay_text")
@fails("were streamed as [' ', ", "test_characters_across_tokens_stay_whole")
@fails("look at token_bytes", "test_a_stop_string_may_be_any_unicode")
class AddsASpace(SoundTokenizer):
    """Begins every text with a space."""

    def encode(self, text, special=False):
        return super().encode(f" {text}", special)


@fails("holds the special token", "test_special_strings_in_text_stay_text")
@fails("came back as b'#  </s>  are text'", "test_text_survives_encoding")
@fails("were streamed as", "test_characters_across_tokens_stay_whole")
class ParsesSpecials(SoundTokenizer):
    """Takes special strings in a text for what they mean."""

    def encode(self, text, special=False):
        return super().encode(text, special=True)


@fails("or it shows in text", "test_every_id_has_bytes")
class ShowsEos(SoundTokenizer):
    """Has text for end-of-text."""

    def token_bytes(self, id):
        return b"<|endoftext|>" if id == EOS else super().token_bytes(id)


@fails("fim is None, but special_id knows", "test_fim_tokens_are_found")
class HidesFim(SoundTokenizer):
    """Does not look for its fill-in-the-middle tokens."""

    fim = None


@fails("are not distinct", "test_fim_tokens_are_found")
class MixesFim(SoundTokenizer):
    """Has one id for two of them."""

    fim = FimIds(prefix=SPECIAL["<fim_prefix>"], suffix=SPECIAL["<fim_prefix>"], middle=SPECIAL["<fim_middle>"])


@fails("of 8 tokens, and InvalidValueError", "test_an_infill_prompt_runs")
class RefusesSpecials(SoundModel):
    """Takes no special tokens in a prompt."""

    def begin(self, one, states):
        super().begin(one, states)
        if max(one.prompt_ids, default=0) > EOS:
            one.error = InvalidValueError("a special token in the prompt")
