"""Train codellm-demo on one GPU within a time budget, and write the bundled model.

    python train.py CORPUS TOKENIZER_DIRECTORY OUTPUT --seconds 540

The budget covers everything, from reading the corpus to the last file written. `--smoke` runs a few steps of the same
code on a CPU with a few documents: it proves the script, not the model.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import architecture
import completions
import heldout
import numpy as np
import streams
import torch
from muon import Muon
from streams import Streams
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, Starcoder2ForCausalLM

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does; rates are peaks, and fractions are of the training time."""

    seconds: float = 540.0  # everything
    reserve: float = 35.0  # of them, kept for measuring and writing
    rows: int = 128  # sequences a step
    context: int = architecture.CONTEXT  # tokens a sequence
    matrix_rate: float = 0.02  # Muon
    vector_rate: float = 3e-3  # AdamW: embeddings, biases, norms
    warmup: int = 100  # steps
    decay_from: float = 0.4  # constant rate until here, then linear to `last_rate`
    last_rate: float = 0.01  # of the peak
    functions_from: float = 0.6  # from here on, documented functions take their share of each step
    infill_share: float = 0.18
    functions_share: float = 0.2
    documents: int | None = None  # of the corpus; None takes all
    steps: int | None = None  # an end before the budget's
    checkpoint_every: float = 120.0  # seconds


SMOKE = Plan(seconds=600.0, rows=4, context=128, warmup=2, documents=300, steps=30)


class Rows:
    """Cuts random rows from the token streams, on the device that trains."""

    def __init__(self, made: Streams, plan: Plan, device: torch.device) -> None:
        self.plan = plan
        self.generator = torch.Generator(device).manual_seed(0)
        # int16 holds every id of this small vocabulary, and all streams together fit any GPU.
        self.plain, self.infill, self.functions = (
            torch.from_numpy(ids.astype(np.int16)).to(device) for ids in (made.plain, made.infill, made.functions)
        )

    def _cut(self, stream: Tensor, rows: int) -> Tensor:
        span = torch.arange(self.plan.context + 1, device=stream.device)
        last = stream.numel() - len(span)
        starts = torch.randint(last, (rows, 1), generator=self.generator, device=stream.device)
        return stream[starts + span].long()

    def draw(self, fraction: float) -> Tensor:
        """One step's rows [rows, context + 1], mixed as the plan says for this fraction of the training time."""
        infill = round(self.plan.infill_share * self.plan.rows)
        late = fraction >= self.plan.functions_from
        functions = round(self.plan.functions_share * self.plan.rows) if late else 0
        shares = (
            (self.plain, self.plan.rows - infill - functions),
            (self.infill, infill),
            (self.functions, functions),
        )
        return torch.cat([self._cut(stream, rows) for stream, rows in shares if rows])


def rate(plan: Plan, step: int, fraction: float) -> float:
    """The learning rate as a part of its peak: a short rise, constant, then linear decay by the clock."""
    rise = min(1.0, (step + 1) / plan.warmup)
    fall = (1 - fraction) / (1 - plan.decay_from)
    return rise * max(plan.last_rate, min(1.0, fall))


def objective(model: Starcoder2ForCausalLM, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Rows [B, S + 1] to their mean next-token loss; matrix products in bfloat16, the softmax in float32."""

    def loss(rows: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            hidden = model.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state  # [B, S, H]
            logits = model.lm_head(hidden)  # [B, S, V]
        return cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())

    return torch.compile(loss) if device.type == "cuda" else loss


def optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, biases and norms."""
    inner = {name: p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name}
    outer = [p for name, p in model.named_parameters() if name not in inner]
    made: list[torch.optim.Optimizer] = [
        Muon(inner.values(), lr=plan.matrix_rate),
        torch.optim.AdamW(outer, lr=plan.vector_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def rounded(model: Starcoder2ForCausalLM, output: Path, tokenizer: Path) -> Path:
    """Write the model in bfloat16 with its tokenizer, as the folder that ships; returns the folder."""
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    copy = nn.Module.to(architecture.create(model.config, torch.device("cpu")), torch.bfloat16)
    copy.load_state_dict(weights)
    copy.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0)  # type: ignore[no-untyped-call]
    copy.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    # Readers older than transformers 5, and llama.cpp's converter, look for these two names.
    config = json.loads((output / "config.json").read_text("utf-8"))
    config |= {"rope_theta": config["rope_parameters"]["rope_theta"], "torch_dtype": config["dtype"]}
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, output / name)
    return output


@dataclass(frozen=True, slots=True)
class Trained:
    """How training went."""

    steps: int
    tokens: int
    training_seconds: float
    tokens_per_second: float
    last_loss: float


def train(
    model: Starcoder2ForCausalLM,
    loss: Callable[[Tensor], Tensor],
    rows: Rows,
    plan: Plan,
    end: float,
    save: Callable[[], object],
) -> Trained:
    """Step until `end` on the monotonic clock, or for `plan.steps`; `save` is called every checkpoint interval."""
    begin = saved = time.monotonic()
    made, step, value, shown = optimizers(model, plan), 0, float("nan"), begin
    while True:
        now = time.monotonic()
        fraction = (now - begin) / (end - begin) if plan.steps is None else step / plan.steps
        if fraction >= 1:
            break
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate(plan, step, fraction)
        current = loss(rows.draw(fraction))
        current.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 10 == 0 or step == plan.steps:
            value = current.item()  # also keeps the host from running far ahead of the clock
        if now - shown > 15 or step == 10:
            shown = now
            speed = step * plan.rows * plan.context / (now - begin + 1e-9)
            print(
                f"{now - begin:6.0f} s  step {step:6d}  loss {value:.4f}  {speed / 1e6:.2f} M tokens/s",
                flush=True,
            )
        if now - saved > plan.checkpoint_every:
            save()
            saved = time.monotonic()
    if not np.isfinite(value):
        raise ArithmeticError(f"the loss became {value} by step {step}: lower the rates in Plan")
    spent = time.monotonic() - begin
    tokens = step * plan.rows * plan.context
    return Trained(step, tokens, spent, tokens / spent, value)


def measure(
    directory: Path, held: Path, prompts: Path | None, output: Path, device: torch.device
) -> Mapping[str, float]:
    """Held-out bits per byte of the written model, and its HumanEval completions where prompts are given."""
    model = Starcoder2ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    nn.Module.to(model, device).train(False)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    torch.backends.cuda.matmul.allow_tf32 = False
    score = heldout.bits_per_byte(model, tokenizer, heldout.texts(held), architecture.CONTEXT)
    print(f"held-out bits per byte {score:.4f}", flush=True)
    if prompts is not None:
        completions.write(completions.complete(model, tokenizer, json.loads(prompts.read_text("utf-8"))), output)
    return {"heldout_bits_per_byte": score}


def run(arguments: argparse.Namespace, plan: Plan) -> None:
    """The whole road: encode, warm up, train, write, measure."""
    begin = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer_path = arguments.tokenizer / "tokenizer.json"
    encoding = streams.start(arguments.corpus / "train.jsonl.xz", tokenizer_path, plan.documents)
    vocabulary = Tokenizer.from_file(str(tokenizer_path)).get_vocab_size()
    torch.manual_seed(0)
    model = architecture.create(architecture.shape(vocabulary), device)
    loss = objective(model, device)
    # Compile while the other cores still encode: a row of noise has the right shape, and its gradient is thrown away.
    loss(torch.randint(vocabulary, (plan.rows, plan.context + 1), device=device)).backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    print(
        f"{time.monotonic() - begin:.0f} s  {model.num_parameters()} parameters on {device}, compiled",
        flush=True,
    )
    made = encoding.result()
    sizes = {name: int(getattr(made, name).size) for name in ("plain", "infill", "functions")}
    print(f"{time.monotonic() - begin:.0f} s  tokens {sizes}", flush=True)
    directory = arguments.output / "codellm-demo"

    def save() -> Path:
        return rounded(model, directory, arguments.tokenizer)

    end = begin + plan.seconds - plan.reserve
    trained = train(model, loss, Rows(made, plan, device), plan, end, save)
    save()
    report = {
        "parameters": model.num_parameters(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "stream_tokens": sizes,
        "plan": asdict(plan),
        **asdict(trained),
    }
    path = arguments.output / "training.json"
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    report |= measure(directory, arguments.heldout, arguments.prompts, arguments.output / "completions.jsonl", device)
    path.write_text(json.dumps({**report, "seconds": time.monotonic() - begin}, indent=1) + "\n", "utf-8")
    print(path.read_text("utf-8"), flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="the folder that `corpus.py build` wrote")
    parser.add_argument("tokenizer", type=Path, help="the folder that `tokenizer.py` wrote")
    parser.add_argument("output", type=Path)
    parser.add_argument("--heldout", type=Path, help="default: heldout.jsonl in the corpus folder")
    parser.add_argument(
        "--prompts", type=Path, help="JSON object, task id to prompt: complete these greedily at the end"
    )
    parser.add_argument("--seconds", type=float, default=Plan().seconds)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args(words)
    arguments.heldout = arguments.heldout or arguments.corpus / "heldout.jsonl"
    arguments.output.mkdir(parents=True, exist_ok=True)
    run(arguments, SMOKE if arguments.smoke else replace(Plan(), seconds=arguments.seconds))


if __name__ == "__main__":
    main()
