"""A parser of command lines and config files that suggests the nearest name for a typo."""

from __future__ import annotations

import re
import sys
from typing import Any, NoReturn

import jsonargparse

from zoopt.support.names import nearest

_ELSEWHERE = {
    "epsilon": "eps",
    "learning_rate": "lr",
    "lr_scheduler_type": "schedule",
    "max_steps": "steps",
    "optimizer": "update",
    "per_device_train_batch_size": "batch_size",
    "zo_eps": "eps",
}
"""Names of settings in other trainers."""

_UNKNOWN = (
    r"unrecognized arguments: (?:--)?([\w.-]+)",
    r"does not accept option '([\w.-]+)'",
    r"[Kk]ey '?\"?([\w.-]+)'?\"? is not expected",
    r"invalid choice: '([\w.-]+)'",
)


class Parser(jsonargparse.ArgumentParser):
    """An ``ArgumentParser`` with one-sentence errors and without abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the error, with the nearest name for an unknown one, and exits with status 2."""
        program = str(self.prog).replace("[options] ", "")
        if "Unexpected config: " in message:
            message = "the config file is not a YAML mapping of settings, such as `steps: 200`"
        print(f"{program}: {message}{self._hint(message)}", file=sys.stderr)
        raise SystemExit(2)

    def _hint(self, message: str) -> str:
        found = next((m for p in _UNKNOWN if (m := re.search(p, message))), None)
        if found is None:
            return ""
        given = found[1]
        parser: Any = self
        command = re.search(r"Subcommand '(\w+)'", message)
        if command is not None and parser._subcommands_action is not None:
            parser = parser._subcommands_action.choices[command[1]]
        known = [option.removeprefix("--") for option in parser._option_string_actions]
        if "invalid choice" in message:
            known = re.findall(r"'([\w-]+)'", message.partition("choose from")[2])
        elsewhere = _ELSEWHERE.get(given)
        prefixed = next((name for name in known if name.endswith(f".{given}")), None)
        name = elsewhere if elsewhere in known else prefixed or nearest(given, known)
        return f". Did you mean {name!r}?" if name else ". See --help for all options."
