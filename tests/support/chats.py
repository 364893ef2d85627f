"""Chat templates in the shapes of published families, and checkpoints that have one; all of them made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from codellm.sources import ModelSource
from codellm.sources.bundled import bundled_directory
from codellm.sources.local import read_directory
from support.checkpoints import Arrays, config_of, random_weights, save_safetensors, train_tokenizer

CHATML = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou write programs.<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages[::-1] %}
    {%- if ns.last < 0 and message.role == 'user' %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'system' and loop.first %}
        {%- continue %}
    {%- endif %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.last %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

HEADERS = """\
{{- bos_token }}
{% macro header(role) -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{% endmacro -%}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- header('system') }}
{{- 'Year: ' ~ strftime_now('%Y') ~ '\\n' ~ system ~ '<|eot_id|>' }}
{%- for message in messages %}
    {{- header(message['role']) }}{{ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- header('assistant') }}
{%- endif %}
"""

INSTRUCTION = """\
{% if not add_generation_prompt is defined %}
{% set add_generation_prompt = false %}
{% endif %}
{{ bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
{{ message['content'] }}
    {%- elif message['role'] == 'user' %}
{{ '### Instruction:\\n' + message['content'] + '\\n' }}
    {%- else %}
{{ '### Response:\\n' + message['content'] + '\\n' + eos_token + '\\n' }}
    {%- endif %}
{%- endfor %}
{% if add_generation_prompt %}
{{ '### Response:' }}
{% endif %}
"""

INST = """\
{%- if messages[0].role == 'system' -%}
    {%- set system = messages[0].content -%}{%- set turns = messages[1:] -%}
{%- else -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for turn in turns -%}
    {%- if (turn.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('roles must alternate user/assistant/user/assistant') -}}
    {%- endif -%}
    {%- if turn.role == 'user' -%}
        {%- if loop.last and system is defined -%}
            {{- '[INST]' + system + '\\n\\n' + turn.content + '[/INST]' -}}
        {%- else -%}
            {{- '[INST]' + turn.content + '[/INST]' -}}
        {%- endif -%}
    {%- else -%}
        {%- generation -%}{{- turn.content|trim + eos_token -}}{%- endgeneration -%}
    {%- endif -%}
{%- endfor -%}
"""

TURNS = """\
{{ bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<｜User｜>' + message.content }}
    {%- elif message.role == 'assistant' %}
        {{- '<｜Assistant｜>' + message.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}
    {%- else %}
        {{- message.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<｜Assistant｜><think>\\n' }}
{%- endif %}
"""

AS_JSON = """\
{% for message in messages if message.content %}
<s>{{ message | tojson(indent=2) }}</s>
{% endfor %}
{% if add_generation_prompt %}<s>{% endif %}
"""

FAMILIES = {
    "ChatML": (CHATML, "qwen2", ("<|im_start|>", "<|im_end|>")),
    "headers": (HEADERS, "llama3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "instruction": (INSTRUCTION, "deepseek", ("<|EOT|>",)),
    "INST": (INST, "codellama", ("[INST]", "[/INST]")),
    "turns": (TURNS, "deepseek", ("<｜User｜>", "<｜Assistant｜>")),
    "JSON": (AS_JSON, "codellama", ()),
}
"""Template, family of the tokenizer, tokens that the tokenizer has for it."""
ENDS = {
    "ChatML": "<|im_end|>",
    "headers": "<|eot_id|>",
    "instruction": "<｜end▁of▁sentence｜>",
    "turns": "<｜end▁of▁sentence｜>",
    "INST": "</s>",
}
"""What each writes after the assistant's turn."""


def tokenizer_of(shape: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A tokenizer.json with the special tokens of a template, and its config with the template in it."""
    template, family, tokens = FAMILIES[shape]
    path, config = train_tokenizer(family, folder)
    tokenizer = Tokenizer.from_file(str(path))
    # DeepSeek-R1 lists its turns as ordinary added tokens
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=shape != "turns") for token in tokens])
    tokenizer.save(str(path))
    return path, config | {"chat_template": template}


def checkpoint(folder: Path, shape: str = "ChatML") -> ModelSource:
    """A directory of a tiny model with random weights and a chat template."""
    path, tokenizer_config = tokenizer_of(shape, folder)
    config = config_of("llama", Tokenizer.from_file(str(path)).get_vocab_size())
    weights = Arrays(random_weights(config))
    save_safetensors(folder / "model.safetensors", weights, [info.name for info in weights])
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return read_directory(folder, "tiny")


def with_template(folder: Path, template: object = CHATML) -> Path:
    """The bundled model in a directory of its own, whose tokenizer_config.json has a chat template."""
    demo = bundled_directory("codellm-demo")
    for file in demo.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((demo / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return folder
