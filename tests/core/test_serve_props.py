"""What llama.cpp's clients learn of a model before they ask."""

import pytest

import codellm
from support.serving import serving


@pytest.fixture(scope="module")
def server():
    with serving("--context-length", "512", "--batch-size", "2") as server:
        yield server


def test_how_much_fits_and_how_many_at_a_time(server):
    found = server.ask("/props").json
    assert found["default_generation_settings"]["n_ctx"] == 512
    assert found["default_generation_settings"]["params"]["top_k"] == 40
    assert found["total_slots"] == 2
    assert found["model_path"] == found["model_alias"] == "codellm-demo"
    assert found["chat_template"] == ""
    assert found["build_info"] == f"codellm {codellm.__version__}"


def test_what_a_completion_says_of_its_settings_is_what_is_told_before(server):
    told = server.ask("/props").json["default_generation_settings"]["params"]
    used = server.ask("/completion", {"prompt": "x", "n_predict": 1}).json["generation_settings"]
    assert used == told | {"n_predict": 1}


def test_a_model_that_is_not_there_is_named(server):
    assert server.ask("/props?model=codellm-demo").status == 200
    answer = server.ask("/props?model=other")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert server.ask("/props", {}).status == 405
