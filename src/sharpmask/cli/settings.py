"""Command lines of the settings of a run: --config, and FIELD=VALUE for each field of a dataclass."""

import re
from collections.abc import Callable
from pathlib import Path

from jsonargparse import ArgumentParser

from sharpmask.errors import ConfigError
from sharpmask.field_docs import field_docs


def add_settings(parser: ArgumentParser, settings: type) -> None:
    """--config, --resume and an option for each field, with the help that stands behind it in the code."""
    parser.add_argument(
        "--config", action="config", help="YAML file with the run's settings, or the name of a shipped one"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add_class_arguments(settings, as_group=False)
    docs = field_docs(settings)
    for action in parser._actions:
        if action.dest in docs:
            action.help = docs[action.dest].replace("%", "%%")
    for group in parser._action_groups:  # those of nested dataclasses are called like their class
        names = [action.dest for action in group._group_actions]
        if names and names[0] in docs:
            group.title = f"{names[0]}: {docs[names[0]]}"


def rewrite_settings(arguments: list[str], config_file: Callable[[str], str]) -> list[str]:
    """FIELD=VALUE -> --FIELD=VALUE, and the name of a shipped config -> its path.

    Raises:
        ConfigError: there is no such config, or it is no text.
    """

    def checked(name: str) -> str:
        path = config_file(name)
        try:
            Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {path}: cannot be read as text in UTF-8 ({error})") from None
        return path

    rewritten = [f"--{a}" if re.match(r"[a-z][\w.]*=", a) else a for a in arguments]
    for i, argument in enumerate(rewritten):
        if argument.startswith("--config="):
            rewritten[i] = f"--config={checked(argument.removeprefix('--config='))}"
        elif i and rewritten[i - 1] == "--config":
            rewritten[i] = checked(argument)
    return rewritten
