"""A language model as judge, behind any OpenAI-compatible endpoint; and its costs before it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contextrl_verl.pairs import ContrastivePair
from data_prep.models.budget import Budget
from data_prep.models.cache import ReplyCache
from data_prep.models.chat import ChatEndpoint, ChatSettings
from data_prep.models.spec import EndpointRole
from data_prep.models.tokens import BYTES_PER_TOKEN, input_bound, input_guess
from data_prep.verify.prompt import PROMPT_VERSION, judge_messages
from data_prep.verify.verdict import Judgement, Verdict

# A reason of one or two sentences and the braces around it.
_USUAL_REPLY_TOKENS = 120


@dataclass(frozen=True)
class Estimate:
    """What judging would cost.

    Attributes:
        calls: answers that are not in the cache; ``cached``: those that are.
        input_tokens, output_tokens: a guess; ``how`` says by what means.
        cost: of the guess; None without prices.
        worst_case: if every answer is as long as allowed and every byte is a token; retries come on top.
    """

    calls: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost: Decimal | None
    worst_case: Decimal | None
    currency: str
    how: str

    def sentence(self) -> str:
        money = "no prices given, so no cost"
        if self.cost is not None:
            money = f"{self.cost:.4f} {self.currency} (at most {self.worst_case:.4f} without retries)"
        return (
            f"{self.calls} calls to make, {self.cached} answers already in the cache; "
            f"about {self.input_tokens:,} input and {self.output_tokens:,} output tokens ({self.how}); {money}"
        )


class OpenAIJudge:
    """Asks an endpoint for verdicts. See :class:`data_prep.models.chat.ChatEndpoint` for how failures are met."""

    def __init__(
        self,
        settings: ChatSettings,
        cache: ReplyCache | None = None,
        budget: Budget | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.endpoint = ChatEndpoint(settings, cache, budget, environ)

    async def __aenter__(self) -> OpenAIJudge:
        await self.endpoint.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.endpoint.__aexit__(*exception)

    async def judge(self, pair: ContrastivePair) -> Judgement:
        """Raises RemoteError when nothing more can be asked."""
        reply = await self.endpoint.ask(judge_messages(pair), Verdict, PROMPT_VERSION)
        if reply.value is not None:
            return Judgement(reply.value.label, reply.value.reason, cached=reply.cached)
        label = "UNCERTAIN" if reply.how == "malformed" else None
        return Judgement(label, reply.why, reply.how, reply.cached)

    def estimate(self, pairs: Iterable[ContrastivePair], count: Callable[[str], int] | None = None) -> Estimate:
        """Look at every pair and at the cache; asks nothing.

        Args:
            count: a tokenizer's count of tokens; by default bytes are divided by a constant.
        """
        settings, prices = self.endpoint.settings, self.endpoint.budget.prices
        calls = cached = tokens = bound = 0
        for pair in pairs:
            messages = judge_messages(pair)
            if self.endpoint.stored(self.endpoint.key(messages, Verdict, PROMPT_VERSION), Verdict):
                cached += 1
                continue
            calls += 1
            tokens += input_guess(messages, settings.tokens_per_image, count)
            bound += input_bound(messages, Verdict, settings.tokens_per_image)
        usual = calls * min(_USUAL_REPLY_TOKENS, settings.max_tokens)
        how = "counted with the tokenizer given" if count else f"UTF-8 bytes / {BYTES_PER_TOKEN:g}"
        return Estimate(
            calls=calls,
            cached=cached,
            input_tokens=tokens,
            output_tokens=usual,
            cost=prices and prices.cost(tokens, usual),
            worst_case=prices and prices.cost(bound, calls * settings.max_tokens),
            currency=prices.currency if prices else "",
            how=f"{how}; {_USUAL_REPLY_TOKENS} output tokens a reply",
        )

    def summary(self) -> dict[str, Any]:
        """Requests, answers, tokens and money as plain values."""
        budget = self.endpoint.budget
        usage = self.endpoint.usage
        counts = {**vars(usage), "retries": dict(usage.retries), "fallbacks": list(usage.fallbacks)}
        cache = self.endpoint.cache
        counts |= {"model": self.endpoint.settings.model, "damaged_cache_files": cache.damaged if cache else 0}
        if budget.prices is not None:
            counts |= {
                "spent": float(budget.spent),
                "of_it_at_worst_case": float(budget.uncertain),
                "billed_above_worst_case": budget.over_worst_case,
                "currency": budget.prices.currency,
                "cap": None if budget.cap is None else float(budget.cap),
            }
        return counts


def judge_of(role: EndpointRole, environ: Mapping[str, str] = os.environ) -> OpenAIJudge:
    """The judge that a role describes; raises RemoteError on prices, cap or address that make no sense."""
    return OpenAIJudge(role.settings(), role.replies(), role.budget(), environ)
