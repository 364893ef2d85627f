"""lm-eval against the server: what it finds is what the library scores and generates."""

import json
import os

import pytest

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import datasets
import lm_eval
from lm_eval.tasks import TaskManager

import codellm
from codellm import SamplingParams
from codellm.sources.bundled import bundled_directory

DOCS = [
    {"prompt": "def add(a, b):\n    return", "choices": [" a + b", " a - b", " None"], "label": 0},
    {"prompt": "import", "choices": [" os\nimport sys", " a b c"], "label": 0},
    {"prompt": "# größer als\nif a >", "choices": [" b:", " größer", " = = ="], "label": 1},
    {"prompt": "for i in range(10):\n    ", "choices": ["print(i)", "pass"], "label": 0},
]
TASKS = {
    "choosing": """\
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: label
target_delimiter: ""
metric_list: [{metric: acc}]
""",
    "rolling": """\
output_type: loglikelihood_rolling
doc_to_target: "{{prompt}}"
metric_list: [{metric: word_perplexity}]
""",
    "generating": """\
output_type: generate_until
doc_to_target: "{{choices[label]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}
WAYS = {
    "ids": {}, "batches of ids": {"batch_size": 4}, "text": {"tokenized_requests": False},
    "several at once": {"num_concurrent": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    for name, text in TASKS.items():
        whence = (
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'docs.jsonl'}}}}}\n"
        )
        (folder / f"{name}.yaml").write_text(f'{whence}test_split: test\ndoc_to_text: "{{{{prompt}}}}"\n{text}')
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture
def evaluate(api, tasks):
    def evaluate(task, **fields):
        arguments = {
            "model": "codellm-demo", "base_url": f"{api}/completions", "tokenizer_backend": "huggingface",
            "tokenizer": str(bundled_directory("codellm-demo")), "max_retries": 1, **fields,
        }  # fmt: skip
        found = lm_eval.simple_evaluate(
            model="local-completions", model_args=arguments, tasks=[task], task_manager=tasks, bootstrap_iters=0
        )
        return found["results"][task], sorted(found["samples"][task], key=lambda sample: sample["doc_id"])

    return evaluate


@pytest.fixture(scope="module")
def model():
    with codellm.load("codellm-demo", threads=1) as model:
        yield model


def likelihood(model, context, continuation):
    """Of a continuation, and whether it is what greedy decoding gives."""
    whole = model.tokenizer.encode(context + continuation)
    start = len(model.tokenizer.encode(context))
    [row] = model.score([whole])
    greedy = all(int(model.logits(whole[:end]).argmax()) == whole[end] for end in range(start, len(whole)))
    return float(row[start - 1 :].sum()), greedy


@pytest.mark.parametrize("way", WAYS)
def test_choices_are_as_likely_as_the_library_scores_them(evaluate, model, way):
    results, samples = evaluate("choosing", **WAYS[way])
    hits = 0
    for doc, sample in zip(DOCS, samples, strict=True):
        expected = [likelihood(model, doc["prompt"].rstrip(), doc["prompt"][len(doc["prompt"].rstrip()) :] + choice)
                    for choice in doc["choices"]]  # fmt: skip
        found = [(float(logprob), greedy in (True, "True")) for logprob, greedy in sample["filtered_resps"]]
        assert [logprob for logprob, _ in found] == pytest.approx([logprob for logprob, _ in expected], abs=0.02)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        hits += max(range(len(expected)), key=lambda index: expected[index][0]) == doc["label"]
    assert results["acc,none"] == hits / len(DOCS)


def test_texts_are_as_likely_as_the_library_scores_them(evaluate, model):
    _, samples = evaluate("rolling")
    eos = model.tokenizer.eos
    for doc, sample in zip(DOCS, samples, strict=True):
        [row] = model.score([[eos, *model.tokenizer.encode(doc["prompt"])]])
        [found] = sample["filtered_resps"]
        assert float(found) == pytest.approx(float(row.sum()), abs=0.02)


def test_what_is_generated_is_what_the_library_generates(evaluate, model):
    _, samples = evaluate("generating")
    for doc, sample in zip(DOCS, samples, strict=True):
        assert sample["filtered_resps"] == [
            model.generate(doc["prompt"], SamplingParams(max_tokens=12, stop=("\n",))).text
        ]
