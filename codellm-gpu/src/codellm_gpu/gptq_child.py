"""gptqmodel in a process of its own: it prints much, starts threads, and changes torch and transformers for good.

`python -m codellm_gpu.gptq_child JOB`, a JSON file that save_gptq.py writes. Prints `DONE of TOTAL layers` after each,
and at the end why it failed, if it did. Exit code 0: written.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from codellm.system.child import end_with_parent


def main() -> int:
    """Quantize as the job says → exit code."""
    job = json.loads(Path(sys.argv[1]).read_text())
    end_with_parent(None)
    out = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        quantize(job, out)
    except Exception as error:  # whatever gptqmodel raises: the parent tells it
        text = " ".join(str(error).split())
        os.write(out, f"failed: {type(error).__name__}: {text}\n".encode())
        return 1
    return 0


def quantize(job: dict[str, Any], out: int) -> None:
    """Load, quantize and save; `out` takes the progress."""
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    torch.set_num_threads(job["threads"])
    cuda = torch.cuda.is_available()
    config = QuantizeConfig(
        bits=job["bits"],
        group_size=job["group"],
        desc_act=False,
        sym=True,
        # AutoGPTQ's; of 3 bits gptqmodel stores zero points there as nobody else reads them
        format="gptq" if job["bits"] != 3 else "gptq_v2",
        # its default on a CPU compiles C++
        pack_impl="gpu" if cuda else "original",
        offload_to_disk=False,
    )
    model = GPTQModel.load(
        job["source"],
        config,
        device="cuda:0" if cuda else "cpu",
        backend=BACKEND.TORCH,
        trust_remote_code=False,
    )
    total = model.model.config.num_hidden_layers

    def done(*, layer_idx: int, **_: object) -> None:
        os.write(out, f"{layer_idx + 1} of {total} layers\n".encode())

    model.layer_callback = done
    model.quantize([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["windows"]], batch_size=1)
    model.save(job["destination"])


if __name__ == "__main__":
    sys.exit(main())
