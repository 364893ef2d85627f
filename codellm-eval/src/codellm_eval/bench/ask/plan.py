"""What every row of one benchmark measures: sizes, repeats, seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Self

import attrs

from codellm.errors import ContextLengthError
from codellm_eval.bench.ask.workload import Workload, at_least

GROWTH_BATCHES = (1, 2, 4, 8)
GROWTH_CONTEXT = 128
"""The first context of a growth curve; each further one is four times as long, and the last is all that there is."""


@attrs.frozen(kw_only=True)
class Plan:
    """Sizes in tokens, the same for every row; `fit` makes them smaller where a model's context asks for it.

    Raises:
        InvalidValueError: a size that cannot be measured.
    """

    prompt_tokens: int = attrs.field(default=512, validator=at_least(1))
    """pp: the tokens of the prompt whose prefill is timed."""
    new_tokens: int = attrs.field(default=128, validator=at_least(2))
    """tg: the tokens generated after a prompt of one token; a rate needs two."""
    request_tokens: int = attrs.field(default=128, validator=at_least(1))
    """The prompt of the request that TTFT, TPOT and ITL are told of; it generates `new_tokens`."""
    task: str | None = None
    """The HumanEval task whose prompt is that request's; pp and tg are then told of the same request, and nothing else
    is measured, as in a study that gave one prompt to every model. None: random prompts."""
    repeats: int = attrs.field(default=5, validator=at_least(1))
    seed: int = attrs.field(default=0, validator=at_least(0))
    """Prompts are drawn from it: every row is given the same ones."""
    workloads: tuple[Workload, ...] = ()
    """What is measured besides pp and tg of one sequence; the record's `points` hold it."""
    growth: bool = False
    """Whether `fit` adds the workloads of the curves: tg by batch size, and by context up to the model's."""

    @classmethod
    def of_lists(
        cls,
        *,
        prompt_tokens: Sequence[int],
        new_tokens: Sequence[int],
        batch_sizes: Sequence[int],
        contexts: Sequence[int],
        **settings: int | bool | str | None,
    ) -> Self:
        """All combinations, as llama-bench takes several values, of which the first sizes are the plan's own.

        Those alone, one sequence without context, are no further workload, unless batches are asked that they are to
        be compared with.

        Raises:
            InvalidValueError: a size that cannot be measured.
        """
        plan = cls(prompt_tokens=prompt_tokens[0], new_tokens=new_tokens[0], **settings)  # type: ignore[arg-type]
        sizes = [("pp", size) for size in prompt_tokens] + [("tg", size) for size in new_tokens]
        asked = [
            Workload(kind=kind, tokens=size, context=context, batch_size=batch)  # type: ignore[arg-type]
            for (kind, size), context, batch in itertools.product(sizes, contexts, batch_sizes)
        ]
        alone = () if max(batch_sizes) > 1 else plan.own
        return attrs.evolve(plan, workloads=tuple(dict.fromkeys(each for each in asked if each not in alone)))

    @property
    def own(self) -> tuple[Workload, Workload]:
        """The pp and tg that every row has."""
        return Workload(kind="pp", tokens=self.prompt_tokens), Workload(kind="tg", tokens=self.new_tokens)

    def fit(self, context_length: int) -> Plan:
        """This plan within `context_length`: the generated tokens get at most half of it.

        Further workloads that do not fit are left out.

        Raises:
            ContextLengthError: the context is too short to measure anything.
        """
        if context_length < 4:
            raise ContextLengthError(f"a context of {context_length} tokens is too short to measure; it needs 4")
        new = min(self.new_tokens, context_length // 2)
        fitted = attrs.evolve(
            self,
            prompt_tokens=min(self.prompt_tokens, context_length - 1),
            new_tokens=new,
            request_tokens=min(self.request_tokens, context_length - new),
        )
        asked = [*self.workloads, *(fitted.curves(context_length) if self.growth else ())]
        return attrs.evolve(
            fitted, workloads=tuple(dict.fromkeys(each for each in asked if each.context_length <= context_length))
        )

    def of_prompt(self, tokens: int, context_length: int) -> Plan:
        """This plan, which has a task, as it fits a model that makes `tokens` tokens of its prompt.

        Raises:
            ContextLengthError: it does not fit.
        """
        own = attrs.evolve(self, prompt_tokens=tokens, request_tokens=tokens)
        if tokens + self.new_tokens > context_length:
            raise ContextLengthError(
                f"the prompt of {self.task} has {tokens} tokens, and with {self.new_tokens} new ones does not fit the "
                f"context of {context_length}; take fewer --new-tokens"
            )
        return own.fit(context_length)

    def curves(self, context_length: int) -> Iterator[Workload]:
        """Workloads of tg, by batch size, then by context: 128, 512, 2048 … and all that `context_length` leaves."""
        for size in GROWTH_BATCHES:
            yield Workload(kind="tg", tokens=self.new_tokens, batch_size=size)
        last = context_length - self.new_tokens
        context = GROWTH_CONTEXT
        while context < last:
            yield Workload(kind="tg", tokens=self.new_tokens, context=context)
            context *= 4
        yield Workload(kind="tg", tokens=self.new_tokens, context=last)

    @property
    def together(self) -> tuple[Workload, ...]:
        """The further workloads of a load with many slots: the batches, and what they are compared with."""
        if all(each.batch_size == 1 for each in self.workloads):
            return ()
        return tuple(each for each in self.workloads if each.batch_size > 1 or not each.context)

    @property
    def alone(self) -> tuple[Workload, ...]:
        """The further workloads of one sequence, measured where pp and tg are."""
        return tuple(each for each in self.workloads if each not in self.together)

    @property
    def context_length(self) -> int:
        """The tokens that the longest request of this plan holds."""
        own = max(self.prompt_tokens + 1, self.request_tokens + self.new_tokens)
        return max(own, *(each.context_length for each in self.workloads), 0)

    @property
    def request(self) -> str:
        """The request that latencies are told of: `128+128`, or `HumanEval/0+200`."""
        return f"{self.task or self.request_tokens}+{self.new_tokens}"

    @property
    def named_request(self) -> str:
        """The request where its name has to say that it is one: `request128+128`, or `HumanEval/0+200`."""
        return self.request if self.task else f"request{self.request}"

    @property
    def titles(self) -> tuple[str, str]:
        """What the speeds of prompt and new tokens are called: as llama-bench does where they are its figures."""
        return ("prompt", "decode") if self.task else (f"pp{self.prompt_tokens}", f"tg{self.new_tokens}")

    @property
    def protocol(self) -> str:
        """The protocol in a few words: two figures are comparable only where it is the same."""
        sizes = "" if self.task else f"{' '.join(self.titles)} "
        return f"{sizes}{self.named_request}, one sequence, greedy, {self.repeated()}"

    def describe(self) -> str:
        """The protocol in one sentence, for the notes under a table."""
        if self.task:
            return (
                f"one request, the prompt of {self.task} and {self.new_tokens} new tokens: request, its seconds from "
                "start to end; prompt, prompt tokens / TTFT; decode, 1 / TPOT; one sequence, greedy, end-of-text "
                f"ignored, a short warm-up left out; {self.repeated(', ± the greatest distance from it')}"
            )
        return (
            f"pp{self.prompt_tokens}: prompt tokens / TTFT of a prompt of {self.prompt_tokens} random tokens; "
            f"tg{self.new_tokens}: 1 / TPOT of {self.new_tokens} tokens after a prompt of one; "
            f"TTFT, TPOT, ITL: a request of {self.request_tokens} prompt tokens and {self.new_tokens} new ones; "
            f"one sequence, greedy, end-of-text ignored, no prompt given twice, one warm-up of each left out; "
            f"{self.repeated(', ± the greatest distance of a repeat from it')}"
        )

    def repeated(self, spread: str = "") -> str:
        """How the repeats are told, with what `spread` says of them where there are several."""
        return "measured once" if self.repeats == 1 else f"median of {self.repeats}{spread}"
