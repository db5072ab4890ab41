import asyncio

from lane_obs.core.histogram import Histogram
from lane_obs.storage.change import *
from lane_obs.storage.change import updated
from lane_obs.storage.port import *
from lane_obs.storage.record import *


class H:
    last_seq = 0
    error = None
    ready = True
    commands = letters = pending = kept = failures = dropped = file_bytes = 0
    commit_seconds = Histogram((1.0,))


class MemoryStorage:
    def __init__(self):
        self.commands = {}
        self.letters = {}
        self.seq = 0
        self.log = []

    async def open(self):
        pass

    async def close(self):
        pass

    def health(self):
        h = H()
        h.last_seq = self.seq
        return h

    def apply(self, changes):
        f = asyncio.get_running_loop().create_future()
        for c in changes:
            self.log.append(c)
            if isinstance(c, Save):
                self.commands[c.command.id] = c.command
                self.seq = max(self.seq, c.command.seq)
            elif isinstance(c, Update):
                if c.id in self.commands:
                    self.commands[c.id] = updated(self.commands[c.id], c)
            elif isinstance(c, Remove):
                self.commands.pop(c.id, None)
            elif isinstance(c, AddLetter):
                self.letters[c.letter.id] = c.letter
            elif isinstance(c, RemoveLetter):
                self.letters.pop(c.id, None)
        asyncio.get_running_loop().call_soon(lambda: f.done() or f.set_result(None))
        return f

    async def stream_commands(self, batch=1000):
        rows = sorted(self.commands.values(), key=lambda c: c.seq)
        for i in range(0, len(rows), batch):
            yield rows[i : i + batch]

    async def save_command(self, c):
        await self.apply([Save(c)])

    async def load_commands(self):
        return list(self.commands.values())

    async def remove_command(self, i):
        await self.apply([Remove(i)])

    async def save_dead_letter(self, l):
        await self.apply([AddLetter(l)])

    async def load_dead_letters(self):
        return list(self.letters.values())

    async def clear_dead_letters(self):
        self.letters.clear()

    async def clear_all(self):
        self.commands.clear()
        self.letters.clear()
