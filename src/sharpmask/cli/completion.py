"""Print a script that completes commands and options in bash, zsh or fish.

bash: sharpmask completion bash > ~/.local/share/bash-completion/completions/sharpmask
zsh:  sharpmask completion zsh > ~/.sharpmask.zsh, and in ~/.zshrc the line: source ~/.sharpmask.zsh
fish: sharpmask completion fish > ~/.config/fish/completions/sharpmask.fish"""

import importlib
from typing import Literal, get_args, get_origin

import jsonargparse

from sharpmask.completion import SHELLS, Command, Option, script


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell to write the script for")


def run(args: jsonargparse.Namespace) -> int:
    from sharpmask.cli.main import COMMANDS, build_parser

    commands = {}
    for name, (module_name, summary) in COMMANDS.items():
        module = importlib.import_module(f"sharpmask.cli.{module_name}")
        fields = tuple(module.settings()) if hasattr(module, "settings") else ()
        commands[name] = described(build_parser(name), summary, fields)
    print(script(args.shell, commands), end="")
    return 0


def described(parser: jsonargparse.ArgumentParser, summary: str, fields: tuple[str, ...] = ()) -> Command:
    """What can be completed after the name of a command; `fields` are given as FIELD=VALUE."""
    options = []
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        choices = get_args(hint) if get_origin(hint) is Literal else action.choices or ()
        options.append(
            Option(
                flags=tuple(action.option_strings),
                help=(action.help or "").replace("%%", "%"),
                choices=tuple(map(str, choices)),
                takes_value=action.nargs != 0 and action.dest != "print_config",
            )
        )
    return Command(summary, tuple(options), fields)
