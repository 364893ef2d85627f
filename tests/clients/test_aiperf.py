"""AIPerf, a load generator: several clients at a time ask the real server, and both count the same."""

import importlib.util
import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from codellm.sources.bundled import bundled_directory

if importlib.util.find_spec("aiperf") is None:
    pytest.skip("AIPerf is not installed, which the session `load` installs", allow_module_level=True)

REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 12, 60, 16
LOAD = (
    "--request-count", str(REQUESTS), "--concurrency", "6",
    "--isl", str(PROMPT_TOKENS), "--osl", str(OUTPUT_TOKENS), "--extra-inputs", "ignore_eos:true",
    "--random-seed", "3",
)  # fmt: skip


@pytest.fixture
def profile(server, tmp_path):
    """Run the command, and return what it reports."""

    def profile(*arguments):
        command = [Path(sysconfig.get_path("scripts"), "aiperf"), "profile", "--url", server.url, *LOAD, *arguments]
        command += ["--tokenizer", bundled_directory("codellm-demo")]
        command += ["--use-server-token-count", "--ui", "none", "--output-artifact-dir", tmp_path / "report"]
        nowhere = {"HOME": str(tmp_path / "none"), "HF_ENDPOINT": "http://127.0.0.1:9"}
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | nowhere, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads((tmp_path / "report" / "profile_export_aiperf.json").read_text())

    return profile


def counted(server):
    """What the server counted so far: requests that were answered, tokens of prompts, tokens generated."""
    text = server.ask("/metrics").body.decode()
    patterns = (
        r'^codellm_requests_total\{endpoint="/v1/(?:chat/)?completions",status="200"\} (\S+)',
        r"^codellm_prompt_tokens_total\{.*\} (\S+)",
        r"^codellm_generated_tokens_total\{.*\} (\S+)",
    )
    return [sum(map(float, re.findall(pattern, text, re.MULTILINE))) for pattern in patterns]


@pytest.mark.parametrize("how", [("--streaming",), ()], ids=["streaming", "whole"])
@pytest.mark.parametrize(("kind", "model"), [("completions", "codellm-demo"), ("chat", "demo-chat")])
def test_a_load_is_served_without_errors_and_counted_alike(server, profile, kind, model, how):
    before = counted(server)
    report = profile("--endpoint-type", kind, "-m", model, *how)
    requests, prompts, outputs = (after - earlier for after, earlier in zip(counted(server), before, strict=True))
    assert report["request_count"]["avg"] == requests == REQUESTS
    assert not report.get("error_summary")
    assert report["output_sequence_length"]["avg"] * REQUESTS == outputs == REQUESTS * OUTPUT_TOKENS
    assert report["input_sequence_length"]["avg"] * REQUESTS == pytest.approx(prompts)
    assert prompts == REQUESTS * PROMPT_TOKENS if kind == "completions" else prompts > REQUESTS * PROMPT_TOKENS
