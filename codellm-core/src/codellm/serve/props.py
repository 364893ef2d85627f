"""`GET /props`, by which llama.cpp's clients learn of a model: how much fits, how many at a time, how it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import codellm
from codellm.serve.body import Body
from codellm.serve.llamacpp import DEFAULTS, Wanted
from codellm.serve.replies import Json
from codellm.serve.service import Service

if TYPE_CHECKING:
    from starlette.responses import Response


def props(service: Service) -> Response:
    """Facts of a model in the words of llama.cpp's server; its name stands for the path, which is nobody's business."""
    info, template = service.model.info, service.model.tokenizer.chat_template
    settings = Wanted.of(Body(b"{}"), info.context_length, **DEFAULTS).settings(info.context_length)
    return Json(
        {
            "default_generation_settings": {"n_ctx": info.context_length, "params": settings},
            "total_slots": info.batch_size,
            "model_alias": service.name,
            "model_path": service.name,
            "chat_template": "" if template is None else template.text,
            "modalities": {"vision": False, "audio": False},
            "build_info": f"codellm {codellm.__version__}",
        }
    )
