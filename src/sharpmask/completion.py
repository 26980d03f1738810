"""Scripts that make bash, zsh and fish complete the command line, written from the commands' own parsers.

The scripts hold all names; nothing of this package runs when the tab key is pressed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Option:
    """An option or a positional argument of a command.

    Attributes:
        flags: such as ("--output",); none for a positional argument.
        help: one line.
        choices: the only values there are; none where anything may be given.
        takes_value: whether a value follows the flag.
    """

    flags: tuple[str, ...] = ()
    help: str = ""
    choices: tuple[str, ...] = ()
    takes_value: bool = True


@dataclass(frozen=True)
class Command:
    """A command with its options; `fields` are names of settings that are given as NAME=VALUE."""

    summary: str
    options: tuple[Option, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """What may stand where no option does: choices of positional arguments."""
        return tuple(choice for option in self.options if not option.flags for choice in option.choices)


def script(shell: str, commands: Mapping[str, Command]) -> str:
    """The completion script of `sharpmask` for one of SHELLS."""
    if shell == "fish":
        return _fish(commands)
    text = _bash(commands)
    if shell == "zsh":
        return _ZSH + text
    return text


_BASH = """\
_sharpmask() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words=
  # Readline takes "=" for a word of its own.
  if [[ $current == "=" ]]; then current=
  elif [[ $previous == "=" ]]; then previous="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=( $(compgen -W "{commands}" -- "$current") )
    return
  fi
  case "${{COMP_WORDS[1]}} $previous" in
{choices}
    *) case "${{COMP_WORDS[1]}}" in
{options}
    esac ;;
  esac
  # Without a match readline completes file names.
  COMPREPLY=( $(compgen -W "$words" -- "$current") )
  if [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && type compopt >/dev/null 2>&1; then
    compopt -o nospace
  fi
}}
complete -o default -F _sharpmask sharpmask
"""

_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }
autoload -Uz bashcompinit && bashcompinit
"""


def _bash(commands: Mapping[str, Command]) -> str:
    choices, options = [], []
    for name, command in commands.items():
        by_choice: dict[tuple[str, ...], list[str]] = {}
        for option in command.options:
            if option.flags and option.choices:
                by_choice.setdefault(option.choices, []).extend(option.flags)
        # A setting's value is completed after NAME= just as after --NAME.
        for values, flags in by_choice.items():
            flags += [flag[2:] for flag in flags if flag[2:] in command.fields]
            patterns = "|".join(f'"{name} {flag}"' for flag in flags)
            choices.append(f'    {patterns}) words="{" ".join(values)}" ;;')
        dashed = _words(flag for option in command.options for flag in option.flags)
        plain = _words([*command.values, *(f"{field}=" for field in command.fields)])
        options.append(f'      {name}) if [[ $current == -* ]]; then words="{dashed}"; else words="{plain}"; fi ;;')
    return _BASH.format(
        commands=_words([*commands, "--help", "--version"]), choices="\n".join(choices), options="\n".join(options)
    )


def _words(names: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(names))


def _fish(commands: Mapping[str, Command]) -> str:
    lines = [
        f"complete -c sharpmask -n __fish_use_subcommand -l {flag} -d {_quoted(text)}"
        for flag, text in (("help", "list the commands"), ("version", "tell the version"))
    ]
    for name, command in commands.items():
        lines.append(f"complete -c sharpmask -n __fish_use_subcommand -f -a {name} -d {_quoted(command.summary)}")
        within = f"complete -c sharpmask -n '__fish_seen_subcommand_from {name}'"
        for option in command.options:
            names = " ".join(f"-l {flag[2:]}" for flag in option.flags if flag.startswith("--"))
            names += "".join(f" -s {flag[1:]}" for flag in option.flags if re.fullmatch("-[^-]", flag))
            if not names:
                continue
            value = f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else " -r" * option.takes_value
            lines.append(f"{within} {names}{value} -d {_quoted(option.help)}")
        plain = [*command.values, *(f"{field}=" for field in command.fields)]
        if plain:
            lines.append(f"{within}{' -f' * bool(command.values)} -a {_quoted(' '.join(plain))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text between single quotes, in which fish knows two escapes."""
    return "'" + " ".join(text.split()).replace("\\", "\\\\").replace("'", "\\'") + "'"
