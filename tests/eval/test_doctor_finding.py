"""What `codellm doctor` says of the sandbox."""

import json

import pytest

from codellm_eval.judge.bubblewrap import fork_server
from codellm_eval.judge.isolation import alone
from codellm_eval.judge.sandbox import SandboxStatus
from support.plugin_folder import codellm


def test_hook_codellm_doctor_says_what_the_sandbox_command_says():
    findings = json.loads(codellm("doctor", "--format", "json").stdout)["findings"]
    [found] = [finding for finding in findings if finding["topic"] == "sandbox"]
    said = codellm("eval", "sandbox", "--format", "json")
    assert found["ok"] is (said.returncode == 0)
    if found["ok"]:
        assert json.loads(said.stdout)[0]["runs_as"] in found["value"]
    else:
        assert found["remedy"] in said.stderr


@pytest.mark.parametrize(
    ("status", "value", "ok", "remedy"),
    [
        (SandboxStatus(None, "bubblewrap is not installed", "apt-get install bubblewrap"),
         "none: bubblewrap is not installed", False, "apt-get install bubblewrap"),
        (SandboxStatus(fork_server("bwrap", as_root=False)),
         "level A of A to C, code runs as nobody in a user namespace", True, ""),
        (SandboxStatus(alone(own_user=False), "bubblewrap is not installed", "apt-get install bubblewrap"),
         "level C of A to C, code runs as the user who judges; no better one: bubblewrap is not installed",
         True, "apt-get install bubblewrap"),
    ],
)  # fmt: skip
def test_the_level_and_the_remedy_are_told(status, value, ok, remedy):
    found = status.finding
    assert (found.topic, found.value, found.ok, found.remedy) == ("sandbox", value, ok, remedy)
