"""A conversation with a checkpoint on torch."""

import attrs

import codellm
from codellm import Message, SamplingParams
from codellm.chat import chat_ids
from support.chats import checkpoint

TALK = [Message("user", "Which of <|im_start|> and <|im_end|> comes first?")]


def test_chat_is_generation_from_the_template_s_prompt(tmp_path):
    checkpoint(tmp_path)
    params = SamplingParams(max_tokens=8, temperature=1.0, seed=3)
    with codellm.load(str(tmp_path), backend="torch-cpu", dtype="float32", context_length=128) as model:
        ids = chat_ids(model.tokenizer, TALK, "m")
        expected = model.generate(ids, attrs.evolve(params, stop="<|im_end|>"))
        result = model.chat(TALK, params)
        assert (result.text, result.token_ids) == (expected.text, expected.token_ids)
        with model.stream_chat(TALK, params) as stream:
            assert "".join(stream) == expected.text
