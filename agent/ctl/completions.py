"""Completion for bash, zsh and fish.

``agentctl completion SHELL`` prints a script; ``python -m agent.ctl.completions FOLDER`` writes
all three, when a package is built. Verbs, options and their choices are those of the parser.
Where a host is asked for, the script runs ``agentctl complete-hosts``, which asks the agent and
prints harmless names only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.ctl.surface import Argument, Command, commands

__all__ = ["FILES", "SHELLS", "bash", "fish", "main", "zsh"]

HOST_VALUES = frozenset({"HOST", "PEER", "SRC", "DST"})
"""Values for which the names of live hosts are offered."""


def bash() -> str:
    """A script for bash-completion's folder, or to be sourced."""
    top, *verbs = commands()
    words = _first_words(verbs)
    cases = [
        f'        "{" ".join(command.words)}") words="{_bash_words(command, verbs)}";'
        f" hosts={int(_wants_host(command))} ;;"
        for command in [*verbs, *_groups(verbs)]
    ]
    values = [
        f"        {'|'.join(option.flags)}) COMPREPLY=($(compgen -W"
        f' "{" ".join(option.choices)}" -- "$cur")); return ;;'
        for option in _options(top, verbs)
        if option.choices
    ]
    files = "|".join(
        flag for option in _options(top, verbs) if option.value == "FILE" for flag in option.flags
    )
    takes = "|".join(
        flag for option in _options(top, verbs) if option.value for flag in option.flags
    )
    return _BASH.format(
        first=words,
        options=" ".join(flag for option in top.options for flag in option.flags),
        cases="\n".join(cases),
        values="\n".join(values),
        files=files,
        takes=takes,
        groups="|".join(sorted({verb.words[0] for verb in verbs if len(verb.words) > 1})),
    )


_BASH = """\
# bash completion for agentctl; made by agent.ctl.completions
_agentctl() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    local verb="" word words plain="" hosts=0 i
    COMPREPLY=()
    case $prev in
{values}
        {files}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case $word in
            {takes}) i=$((i + 1)); continue ;;
            -*) continue ;;
        esac
        case $verb in
            "") verb=$word ;;
            {groups}) verb="$verb $word" ;;
        esac
    done
    case $verb in
        "") words="{first} {options}" ;;
{cases}
        *) words="{options}" ;;
    esac
    if [ $hosts = 1 ] && [[ $cur != -* ]]; then
        words="$(agentctl complete-hosts 2>/dev/null)"
    fi
    if [[ $cur != -* ]]; then
        for word in $words; do [[ $word == -* ]] || plain="$plain $word"; done
    fi
    COMPREPLY=($(compgen -W "${{plain:-$words}}" -- "$cur"))
}}
complete -F _agentctl agentctl
"""


def zsh() -> str:
    """A script for a folder of $fpath, named _agentctl."""
    top, *verbs = commands()
    lines = ["#compdef agentctl", "# made by agent.ctl.completions"]
    lines += ["_agentctl_hosts() {", "    local -a names"]
    lines += ['    names=(${(f)"$(agentctl complete-hosts 2>/dev/null)"})']
    lines += ["    compadd -a names", "}"]
    for command in verbs:
        lines += [f"_agentctl_{_name(command.words)}() {{", "    _arguments -s \\"]
        lines += [f"        {each} \\" for each in _zsh_arguments(command)]
        lines += ["        && return 0", "}"]
    for group in _groups(verbs):
        members = [verb for verb in verbs if verb.words[:1] == group.words and len(verb.words) > 1]
        lines += _zsh_choose(group.words, members, top)
    lines += _zsh_choose((), [verb for verb in verbs if len(verb.words) == 1] + _groups(verbs), top)
    lines.append('_agentctl_ "$@"')
    return "\n".join(lines) + "\n"


def _zsh_choose(words: tuple[str, ...], members: Iterable[Command], top: Command) -> list[str]:
    listed = list(members)
    lines = [f"_agentctl_{_name(words)}() {{", "    local -a verbs"]
    lines += ["    local curcontext=$curcontext state line"]
    lines += ["    verbs=("]
    lines += [f"        {_quote(f'{each.words[-1]}:{each.summary}')}" for each in listed]
    lines += ["    )", "    _arguments -C -A '-*' \\"]
    lines += [f"        {each} \\" for each in _zsh_arguments(top)]
    lines += ["        '1: :->verb' '*:: :->rest' && return 0"]
    lines += ["    case $state in", "        verb) _describe verb verbs ;;", "        rest)"]
    lines += ["            case $line[1] in"]
    lines += [
        f"                {each.words[-1]}) _agentctl_{_name(each.words)} ;;" for each in listed
    ]
    return [*lines, "            esac ;;", "    esac", "}"]


def _zsh_arguments(command: Command) -> list[str]:
    found = []
    for option in command.options:
        for flag in option.flags:
            what = f"{flag}[{_zsh_text(option.help)}]"
            found.append(_quote(what + (_zsh_value(option) if option.value else "")))
    for number, word in enumerate(command.positionals, 1):
        place = f"{number}:" if word.optional else f"{number}"
        found.append(_quote(f"{place}{_zsh_value(word)}"))
    return found


def _zsh_value(argument: Argument) -> str:
    action = "_files" if argument.value == "FILE" else " "
    if argument.choices:
        action = f"({' '.join(argument.choices)})"
    elif argument.value in HOST_VALUES:
        action = "_agentctl_hosts"
    return f":{_zsh_text(argument.value)}:{action}"


def _zsh_text(text: str) -> str:
    return "".join(f"\\{char}" if char in "[]:\\" else char for char in text)


def fish() -> str:
    """A script for fish's vendor_completions.d."""
    top, *verbs = commands()
    takes = sorted(flag for each in _options(top, verbs) if each.value for flag in each.flags)
    lines = ["# fish completion for agentctl; made by agent.ctl.completions"]
    lines.append(_FISH.replace("TAKES", " ".join(takes)))
    lines.append("complete -c agentctl -f")
    lines += [_fish_option(option, "") for option in top.options]
    common = {option.flags for option in top.options}
    for command in [*verbs, *_groups(verbs)]:
        lines.append(
            _fish_word(f"__agentctl_next {' '.join(command.words[:-1])}".rstrip(), command)
        )
        here = f"__agentctl_at {' '.join(command.words)}"
        own = [option for option in command.options if option.flags not in common]
        lines += [_fish_option(option, here) for option in own]
        offers = [" ".join(each.choices) for each in command.positionals if each.choices]
        offers += ["(agentctl complete-hosts 2>/dev/null)"] if _wants_host(command) else []
        lines += [f"complete -c agentctl -n {_quote(here)} -a {_quote(each)}" for each in offers]
    return "\n".join(lines) + "\n"


_FISH = """\
function __agentctl_words -d 'The words typed so far, without options and their values'
    set -l value 0
    for word in (commandline -opc)[2..]
        if test $value = 1
            set value 0
            continue
        end
        switch $word
            case TAKES
                set value 1
            case '-*'
            case '*'
                echo $word
        end
    end
end
function __agentctl_next -d 'These words stand there, and the next one is asked for'
    set -l words (__agentctl_words)
    test "$words" = "$argv"
end
function __agentctl_at -d 'The words begin with these'
    set -l words (__agentctl_words)
    string match -q -- "$argv *" "$words "
end"""


def _fish_word(condition: str, command: Command) -> str:
    return (
        f"complete -c agentctl -n {_quote(condition)} -a {command.words[-1]}"
        f" -d {_quote(command.summary)}"
    )


def _fish_option(option: Argument, condition: str) -> str:
    parts = ["complete -c agentctl"]
    parts += [f"-n {_quote(condition)}"] if condition else []
    for flag in option.flags:
        parts.append(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}")
    if option.choices:
        parts.append(f"-x -a {_quote(' '.join(option.choices))}")
    elif option.value == "FILE":
        parts.append("-r -F")
    elif option.value:
        parts.append("-x")
    return " ".join([*parts, f"-d {_quote(option.help)}"])


def _first_words(verbs: Iterable[Command]) -> str:
    return " ".join(dict.fromkeys(verb.words[0] for verb in verbs))


def _groups(verbs: Iterable[Command]) -> list[Command]:
    """The first words that are followed by another: config, etcd, ..."""
    listed = list(verbs)
    names = dict.fromkeys(verb.words[0] for verb in listed if len(verb.words) > 1)
    return [
        Command(
            words=(name,),
            summary=", ".join(v.words[1] for v in listed if v.words[0] == name),
            options=(),
            positionals=(),
        )
        for name in names
        if not any(verb.words == (name,) for verb in listed)
    ]


def _options(top: Command, verbs: Iterable[Command]) -> list[Argument]:
    found = {option.flags: option for option in top.options}
    for verb in verbs:
        found.update({option.flags: option for option in verb.options})
    return list(found.values())


def _bash_words(command: Command, verbs: Iterable[Command]) -> str:
    words = [flag for option in command.options for flag in option.flags]
    words += [choice for word in command.positionals for choice in word.choices]
    words += [
        verb.words[1]
        for verb in verbs
        if not command.options and len(verb.words) > 1 and verb.words[:1] == command.words
    ]
    return " ".join(words)


def _wants_host(command: Command) -> bool:
    return any(word.value in HOST_VALUES for word in command.positionals)


def _name(words: tuple[str, ...]) -> str:
    return "_".join(words).replace("-", "_")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


SHELLS: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
FILES = {"bash": "agentctl.bash", "zsh": "_agentctl", "fish": "agentctl.fish"}


def main(argv: list[str]) -> int:
    """Write the three scripts to the folder in ``argv``."""
    if len(argv) != 1:
        print("usage: python -m agent.ctl.completions FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    for shell, make in SHELLS.items():
        (folder / FILES[shell]).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
