"""GPTQ by gptqmodel, in a process of its own (gptq_child.py): what fits it, its progress, and why it failed."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from codellm.artifacts.request import QuantizeRequest
from codellm.errors import ArtifactError, InvalidValueError
from codellm.sources.architectures import read_config
from codellm.system import child
from codellm.system.machine import default_threads
from codellm.tokenizer import HFTokenizer
from codellm.torch import gptq

if TYPE_CHECKING:
    from codellm.artifacts.calibration import Calibration
    from codellm.sources import ModelSource

WINDOW = 512
WINDOWS = 128
"""A calibration text counts up to here: as many windows as the authors of GPTQ took, of a quarter of the length."""

STEP = re.compile(r"^(\d+) of (\d+) layers$")
FAILED = "failed: "


def write(request: QuantizeRequest) -> None:
    """Quantize the request's source, fitted to its calibration text, as GPTQ's v1 checkpoint.

    Raises:
        BackendUnavailableError: gptqmodel is not installed.
        InvalidValueError: rows do not divide into groups, or the calibration text is too short.
        ModelFileError: the source is not supported.
        ArtifactError: gptqmodel failed.
    """
    source, scheme, calibration = request.source, request.scheme, request.calibration
    gptq.require(scheme.name)
    assert calibration is not None  # core brings one to a scheme that needs it
    check_sizes(source)
    with tempfile.TemporaryDirectory(dir=request.destination.parent, prefix=".gptq-") as name:
        folder = Path(name)
        job = {
            "source": str((source.path if source.path is not None else materialized(source, folder)).resolve()),
            "destination": str(request.destination.resolve()),
            "bits": int(scheme.name.removeprefix("gptq-int")),
            "group": gptq.GROUP,
            "threads": request.threads or default_threads(),
            "windows": windows(source, calibration),
        }
        (folder / "job.json").write_text(json.dumps(job))
        # gptqmodel writes files where it runs
        with child.running("codellm_gpu.gptq_child", folder.resolve() / "job.json", folder=folder) as running:
            failed = ""
            for line in running.lines():
                if step := STEP.match(line):
                    request.progress(int(step[1]), int(step[2]))
                elif line.startswith(FAILED):
                    failed = line.removeprefix(FAILED).strip()
            ending = running.wait()
    if ending.code:
        raise ArtifactError(f"{source.name}: gptqmodel cannot quantize it: {failed or ending.signal or ending.last}")


def check_sizes(source: ModelSource) -> None:
    """Refuse what would be padded: no other reader of such checkpoints expects it.

    Raises:
        ModelFileError: the architecture is not supported.
        InvalidValueError: names the first matrix that does not fit.
    """
    architecture, config = read_config(source)
    for name, shape in architecture.shapes(config).items():
        if ".layers." in name and len(shape) == 2 and (shape[1] % gptq.GROUP or shape[0] % 32):
            raise InvalidValueError(
                f"{source.name}: GPTQ needs columns of a multiple of {gptq.GROUP} and rows of one of 32, tensor "
                f"{name!r} is {list(shape)}"
            )


def windows(source: ModelSource, calibration: Calibration) -> list[list[int]]:
    """The token ids of the calibration text, in windows.

    Raises:
        InvalidValueError: they do not fill one.
    """
    ids = HFTokenizer.of(source).encode(calibration.text)
    starts = range(0, min(len(ids), WINDOWS * WINDOW) - WINDOW + 1, WINDOW)
    if not starts:
        raise InvalidValueError(f"calibration text {calibration.name}: has {len(ids)} tokens, GPTQ needs {WINDOW}")
    return [ids[start : start + WINDOW] for start in starts]


def materialized(source: ModelSource, folder: Path) -> Path:
    """Dummy weights as a checkpoint, since gptqmodel reads no other."""
    import torch

    from codellm.spec import LoadSpec
    from codellm.torch.device import free_memory
    from codellm.torch.load import plan
    from codellm.torch.transformers_load import no_bars, open_model

    device = torch.device("cpu")
    spec = LoadSpec(model=source.name, dtype=source.dtype, context_length=1)
    model = open_model(plan(spec, source, device, free_memory(device)), None, "sdpa")
    with no_bars():
        model.save_pretrained(folder / "dummy")
    assert source.tokenizer is not None
    (folder / "dummy" / "tokenizer.json").write_bytes(source.tokenizer.read_bytes())
    (folder / "dummy" / "tokenizer_config.json").write_text(json.dumps(dict(source.tokenizer_config)))
    return folder / "dummy"
