"""The requests that editors' plugins send, against the real server; their shapes are written from public sources.

llama.vim (ggml-org/llama.vim, autoload/llama.vim, January 2026) and llama.vscode (ggml-org/llama.vscode,
src/llama-server.ts) send `/infill`: a completion at the cursor, and one of no tokens that warms the cache with chunks
of other files.
"""

import concurrent.futures

import pytest

from support.serving import serving

CHUNKS = [
    {"text": f"def helper_{number}(value):\n    return value * {number}\n", "filename": f"src/helper_{number}.py"}
    for number in range(16)
]
BEFORE = "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n"
AFTER = "\n    def pop(self):\n        return self.items.pop()\n"

VIM_TIMINGS = [
    f"timings/{what}_{unit}" for what in ("prompt", "predicted") for unit in ("n", "ms", "per_token_ms", "per_second")
]
VIM = {
    "id_slot": 0, "input_prefix": BEFORE, "input_suffix": AFTER, "input_extra": CHUNKS, "prompt": "        self.items.",
    "n_predict": 128, "stop": [], "n_indent": 8, "top_k": 40, "top_p": 0.90, "samplers": ["top_k", "top_p", "infill"],
    "stream": False, "cache_prompt": True, "t_max_prompt_ms": 500, "t_max_predict_ms": 250,
    "response_fields": ["content", *VIM_TIMINGS, "truncated", "tokens_cached"],
}  # fmt: skip
VIM_WARM = {
    "id_slot": 0, "input_prefix": "", "input_suffix": "", "input_extra": CHUNKS, "prompt": "", "n_predict": 0,
    "temperature": 0.0, "samplers": [], "stream": False, "cache_prompt": True, "t_max_prompt_ms": 1,
    "t_max_predict_ms": 1, "response_fields": [""],
}  # fmt: skip
VSCODE = {
    "input_prefix": BEFORE, "input_suffix": AFTER, "input_extra": CHUNKS, "prompt": "        self.items.",
    "n_predict": 64, "top_k": 40, "top_p": 0.99, "stream": False, "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True, "n_indent": 8, "t_max_prompt_ms": 500, "t_max_predict_ms": 2500,
}  # fmt: skip
VSCODE_WARM = {
    "input_prefix": "", "input_suffix": "", "input_extra": CHUNKS, "prompt": "", "n_predict": 0, "samplers": [],
    "cache_prompt": True, "t_max_prompt_ms": 500, "t_max_predict_ms": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with serving("-m", "codellm-demo", "--batch-size", "2") as server:
        yield server


def infill(server, **fields):
    answer = server.ask("/infill", fields)
    assert answer.status == 200, answer.body
    return answer.json


def test_vim_gets_a_suggestion_and_what_it_shows_of_it(server):
    answer = infill(server, **VIM)
    assert set(answer) == set(VIM["response_fields"])
    assert answer["content"].strip()
    assert answer["timings/predicted_n"] >= 1
    assert answer["timings/prompt_n"] + answer["tokens_cached"] > 200
    assert all(answer[name] >= 0 for name in VIM_TIMINGS)
    assert answer["truncated"] is False


def test_vim_warms_the_cache_with_its_ring_of_chunks(server):
    assert infill(server, **VIM_WARM) == {}
    assert infill(server, **{**VIM_WARM, "input_extra": CHUNKS[:1]}) == {}


def test_vscode_gets_a_suggestion_and_what_it_shows_of_it(server):
    answer = infill(server, **VSCODE)
    assert answer["content"].strip()
    timings = answer["timings"]
    assert {"prompt_n", "prompt_ms", "prompt_per_second", "predicted_n", "predicted_ms", "predicted_per_second"} <= set(
        timings
    )
    assert answer["tokens_evaluated"] == timings["prompt_n"] + answer["tokens_cached"]
    settings = answer["generation_settings"]
    assert (settings["n_predict"], settings["top_k"], settings["top_p"], settings["n_indent"]) == (64, 40, 0.99, 8)
    assert infill(server, **VSCODE_WARM)["content"] == ""


@pytest.mark.parametrize("indent", [1, 4, 8])
def test_lines_that_are_indented_less_are_none_of_it(server, indent):
    free = {**VSCODE, "input_extra": [], "t_max_predict_ms": 0, "ignore_eos": True}
    del free["n_indent"]
    [first, *lines] = infill(server, **free)["content"].split("\n")
    kept = [first]
    for line in lines:
        if len(line) - len(line.lstrip()) < indent:
            kept.append("")
            break
        kept.append(line)
    answer = infill(server, **free, n_indent=indent)
    assert answer["content"] == "\n".join(kept)
    assert answer["stop_type"] == "limit"
    with server.streaming("/infill", {**free, "n_indent": indent}) as events:
        *parts, last, _ = events
    assert "".join(part["content"] for part in parts) == answer["content"]
    assert (last["content"], last["stop"], last["stop_type"]) == ("", True, "limit")
    assert last["tokens_predicted"] == answer["tokens_predicted"]


def test_what_ends_early_leaves_its_slot(server):
    early = {**VSCODE, "n_indent": 40, "n_predict": -1, "ignore_eos": True, "t_max_predict_ms": 0}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: infill(server, **early), range(16)))
    assert len({answer["content"] for answer in answers}) == 1
    assert all(answer["tokens_predicted"] < 500 for answer in answers)


def test_a_file_and_a_ring_of_any_length_are_no_error(server):
    line = "    total = total + 1  # and so on\n"
    many = [{"text": line, "filename": f"{number}.py"} for number in range(2000)]
    answer = infill(server, **{**VIM, "input_prefix": line * 20_000, "input_suffix": line * 20_000})
    assert answer["timings/prompt_n"] + answer["tokens_cached"] >= 1900
    answer = infill(server, **{**VIM, "input_extra": [*many, {"text": line * 20_000, "filename": "long.py"}]})
    assert answer["content"]
    assert infill(server, **{**VIM, "input_extra": many})["timings/prompt_n"] > 1000


def test_a_context_that_is_full_is_said_to_be(server):
    full = {"input_prefix": "x = [1, 2, ", "input_suffix": "", "n_predict": -1, "ignore_eos": True}
    answer = infill(server, **full)
    assert answer["truncated"] is True
    assert answer["tokens_evaluated"] + answer["tokens_predicted"] == 2048
    assert answer["stop_type"] == "limit"


AROUND = f"<fim_prefix>{BEFORE}        self<fim_suffix>{AFTER}<fim_middle>"
"""How a client writes it that puts the model's marks in by itself."""


def between(server, tokens):
    return infill(server, input_prefix=BEFORE + "        self", input_suffix=AFTER, n_predict=tokens)["content"]


def test_zed_asks_as_of_ollama(server):
    """zed-industries/zed, crates/edit_prediction: a prompt in the model's own marks, `raw`, and the models by name."""
    options = {"num_predict": 64, "temperature": 0, "stop": ["<|endoftext|>", "<file_sep>"]}
    asked = {"model": "codellm-demo", "prompt": AROUND, "raw": True, "stream": False, "options": options}
    answer = server.ask("/api/generate", asked).json
    assert answer["response"] == between(server, 64)
    assert answer["created_at"]
    [model] = server.ask("/api/tags").json["models"]
    assert {"name", "modified_at", "size", "digest", "details"} <= set(model)
    assert {"format", "family", "families", "parameter_size", "quantization_level"} <= set(model["details"])


def test_continue_asks_as_of_llama_cpp(server):
    """continuedev/continue, core/llm/llms/LlamaCpp.ts: a prompt in the model's own marks, in parts."""
    asked = {"prompt": AROUND, "n_predict": 64, "stop": ["<fim_prefix>", "<file_sep>"], "temperature": 0}
    with server.streaming("/completion", asked) as events:
        parts = [event for event in events if event != "[DONE]"]
    assert "".join(part["content"] for part in parts) == between(server, 64)


def test_minuet_asks_for_what_stands_before_a_suffix(server):
    """milanglacier/minuet-ai.nvim, the provider openai_fim_compatible: `/v1/completions` with a `suffix`, in parts."""
    asked = {
        "model": "codellm-demo", "prompt": BEFORE + "        self", "suffix": AFTER, "max_tokens": 56, "top_p": 0.9,
        "temperature": 0,
    }  # fmt: skip
    with server.streaming("/v1/completions", asked) as events:
        parts = [event for event in events if event != "[DONE]"]
    assert "".join(part["choices"][0]["text"] for part in parts) == between(server, 56)
