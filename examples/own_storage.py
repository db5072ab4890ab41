"""A storage of one's own needs seven methods. This one keeps all in a JSON file that it writes anew each time."""

import tempfile
from pathlib import Path

import msgspec

import lane_obs
from lane_obs.storage import Save, StoredCommand, StoredDeadLetter, adapt

Both = tuple[dict[str, StoredCommand], dict[str, StoredDeadLetter]]


class JsonStorage:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.commands, self.letters = msgspec.json.decode(path.read_bytes(), type=Both) if path.exists() else ({}, {})

    async def save_command(self, command: StoredCommand) -> None:
        self.write(self.commands | {command.id: command}, self.letters)

    async def load_commands(self) -> list[StoredCommand]:
        return sorted(self.commands.values(), key=lambda command: command.seq)

    async def remove_command(self, command_id: str) -> None:
        self.write({key: command for key, command in self.commands.items() if key != command_id}, self.letters)

    async def save_dead_letter(self, letter: StoredDeadLetter) -> None:
        others = {key: other for key, other in self.letters.items() if key != letter.id}
        self.write(self.commands, others | {letter.id: letter})  # the newest comes last

    async def load_dead_letters(self) -> list[StoredDeadLetter]:
        return list(self.letters.values())

    async def clear_dead_letters(self) -> None:
        self.write(self.commands, {})

    async def clear_all(self) -> None:
        self.write({}, {})

    def write(self, commands: dict[str, StoredCommand], letters: dict[str, StoredDeadLetter]) -> None:
        new = self.path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode((commands, letters)))
        new.replace(self.path)  # a crash of the process leaves the old file or the new one
        self.commands, self.letters = commands, letters


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queue.json"
        storage = adapt(JsonStorage(path))
        await storage.open()
        await storage.apply([Save(StoredCommand(id="7", seq=1, lane="api", command_type="mail", payload=b"{}"))])
        await storage.close()
        print("stored:", [command.id for command in await JsonStorage(path).load_commands()])


if __name__ == "__main__":
    lane_obs.run(main())
