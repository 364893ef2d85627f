"""docs/editors.md: it begins with two commands and a picture, and what it says to paste is what the server has."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from codellm.fim import TEMPLATES
from codellm.serve.app import POSTS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "editors.md").read_text()
BASES = {"", "/", "/v1"}
"""Where a client's own path is added."""


def test_it_begins_with_two_commands_and_a_picture():
    commands = re.search(r"\A# \w+\n\n```console\n(.*?)\n```", PAGE, re.DOTALL)[1].splitlines()
    assert commands == ['pip install "codellm-cpu[serve]"', "codellm serve -m codellm-demo"]
    picture = (DOCS / "page.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 200_000
    assert PAGE.index("](page.png)") < PAGE.index("\n## ")


@pytest.mark.parametrize("address", sorted(set(re.findall(r"http://127\.0\.0\.1[^\s'\"`>]*", PAGE))))
def test_an_address_is_one_of_the_server(address):
    parts = urlsplit(address)
    assert parts.port == 8012
    assert parts.path in {*POSTS, *BASES}


@pytest.mark.parametrize("block", re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
def test_settings_are_json(block):
    assert json.loads(block)


def test_every_family_that_fills_in_is_named():
    for template in TEMPLATES:
        assert template.family in PAGE
