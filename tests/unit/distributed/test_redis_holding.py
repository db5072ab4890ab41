"""What a member of a `RedisBroker` knows of what it holds: each claim once, by whichever way it comes first."""

from __future__ import annotations

import random

from lane_obs.distributed.record import Claimed, Turn
from lane_obs.distributed.redis.holding import Holding


def claims(first: int, *ids: str) -> list[Claimed]:
    return [Claimed(id_, "a", b"", token, 1, 0, 0.0, 0.0, 0.0, None) for token, id_ in enumerate(ids, first)]


def turn(*claimed: Claimed) -> Turn:
    return Turn([], list(claimed), [], None)


def test_a_message_before_the_answer() -> None:
    holding, pushed, other = Holding(), claims(5, "a", "b"), claims(9, "c")
    assert holding.take_push(pushed) == pushed
    assert holding.pushed == 5
    assert holding.take_turn(turn(*pushed, *other), 2, []) == other
    assert holding.ids() == ["a", "b", "c"]


def test_an_answer_before_the_message() -> None:
    holding, pushed = Holding(), claims(5, "a", "b")
    assert holding.take_turn(turn(*pushed), 2, []) == pushed
    assert holding.take_turn(turn(), 0, [("a", 5), ("b", 6)]) == []
    assert holding.take_push(pushed) == []
    assert holding.ids() == []


def test_the_same_command_again_is_another_claim() -> None:
    holding = Holding()
    (first,), (second,) = claims(5, "a"), claims(9, "a")
    assert holding.take_push([first]) == [first]
    assert holding.take_push([second]) == [second]
    assert holding.take_turn(turn(), 0, [("a", 5)]) == []
    assert holding.ids() == ["a"]
    assert holding.take_turn(turn(), 0, [("a", 9)]) == []
    assert holding.ids() == []


def test_a_token_that_a_failover_gave_twice() -> None:
    holding = Holding()
    assert holding.take_turn(turn(*claims(5, "a")), 1, []) == claims(5, "a")
    holding.listens_anew()
    assert holding.take_push(claims(5, "b")) == claims(5, "b")
    assert holding.take_push(claims(3, "c")) == claims(3, "c")


def test_cancels_wait_for_their_claims() -> None:
    holding = Holding()
    assert holding.take_cancels(["a", "b"]) == []
    holding.take_push(claims(5, "a"))
    assert holding.take_early() == ["a"]
    assert holding.take_early() == []
    assert holding.take_cancels(["a"]) == ["a"]
    holding.take_cancels([str(number) for number in range(2_000)])
    assert len(holding.early) == 1_000
    assert holding.lose() == ["a"]


def test_messages_and_answers_in_any_order() -> None:
    """Messages come in their order or not at all; an answer has the last push where it was packed without it."""
    for seed in range(300):
        rng, holding, got = random.Random(seed), Holding(), list[Claimed]()
        on_the_way: list[list[Claimed]] = []
        for token in range(1, 41):
            pushed = claims(token, f"c{token}")
            on_the_way.append(pushed)
            if rng.random() < 0.1:  # the connection breaks
                on_the_way.clear()
                holding.listens_anew()
            said = holding.pushed
            while on_the_way and rng.random() < 0.5:
                got += holding.take_push(on_the_way.pop(0))
                said = rng.choice((said, holding.pushed))
            unknown = pushed if said != token else []
            if rng.random() < 0.3:
                got += holding.take_push(on_the_way.pop(0)) if on_the_way else []
            ended = [(one.id, one.token) for one in got[: rng.randrange(len(got) + 1)] if one.token < token]
            got += holding.take_turn(turn(*unknown), len(unknown), ended)
        assert [one.id for one in got] == [f"c{token}" for token in range(1, 41)], seed
