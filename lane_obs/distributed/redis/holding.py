"""What a member holds, as far as it knows: each claim once, though it may come by a message and by an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lane_obs.distributed.record import Claimed, Turn

_MOST_EARLY: Final = 1_000


class Holding:
    """The claims of one member.

    A push is one message with what was claimed for the member while it was idle. Where its next turn finds that it had
    not come, the answer has the same once more, and one of the two is dropped. Messages come in the order in which they
    were sent, those that were sent while nobody listened never.

    Attributes:
        pushed: the first token of the last push that came by message; 0 for none.
    """

    def __init__(self) -> None:
        self.pushed = 0
        self._held: dict[str, int] = {}
        """Tokens by id."""
        self._answered: set[tuple[int, str]] = set()
        """First tokens and ids of pushes that have come with an answer, and whose messages may be on their way."""
        self.early: dict[str, None] = {}
        """Commands to be cancelled whose claim is still on its way here."""

    def take_push(self, claimed: list[Claimed]) -> list[Claimed]:
        """A message has come; gives what is new of it: all or nothing."""
        first = claimed[0]
        if (first.token, first.id) in self._answered:
            self._answered.remove((first.token, first.id))
            return []
        self._answered.clear()  # what was sent before this one does not come any more
        self.pushed = first.token
        self._held.update((claim.id, claim.token) for claim in claimed)
        return claimed

    def listens_anew(self) -> None:
        """What was sent before does not come any more."""
        self._answered.clear()

    def take_turn(self, turn: Turn, pushed: int, ended: Iterable[tuple[str, int]]) -> list[Claimed]:
        """An answer has come; gives what is new of it.

        Args:
            turn: the answer.
            pushed: how many of its first claims were pushed before.
            ended: ids and tokens of the ends that it is the answer to.
        """
        held, claimed = self._held, turn.claimed
        if pushed:
            first = claimed[0]
            if held.get(first.id) == first.token:
                claimed = claimed[pushed:]
            else:
                self._answered.add((first.token, first.id))
        for id_, token in ended:
            if held.get(id_) == token:  # else another claim of this member has it
                del held[id_]
        held.update((claim.id, claim.token) for claim in claimed)
        return claimed

    def take_cancels(self, ids: Iterable[str]) -> list[str]:
        """Commands are to be cancelled; gives those that are here. The others wait for their claim."""
        mine = []
        for id_ in ids:
            if id_ in self._held:
                mine.append(id_)
            else:
                self.early[id_] = None
        while len(self.early) > _MOST_EARLY:
            del self.early[next(iter(self.early))]
        return mine

    def take_early(self) -> Sequence[str]:
        """Those of the commands that are here by now which are to be cancelled; forgets the others."""
        early, self.early = self.early, {}
        return [id_ for id_ in early if id_ in self._held]

    def ids(self) -> list[str]:
        """What is held."""
        return list(self._held)

    def lose(self) -> list[str]:
        """Nothing is held any more; gives what was."""
        lost, self._held = list(self._held), {}
        return lost
