"""Asks several partitions at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


async def together(calls: Iterable[Coroutine[Any, Any, Any]], but: type[Exception] | tuple[()] = ()) -> list[Any]:
    """The answers of calls, in their order, once all have ended.

    Args:
        calls: what is asked.
        but: exceptions of this kind stand in the place of answers.

    Raises:
        Exception: the first other one.
    """
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, but):
            raise answer
    return answers
