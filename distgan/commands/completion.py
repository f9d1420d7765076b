"""Shell completion of `distgan`: scripts for bash, zsh and fish from the verbs' declarations."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Completion:
    """The words that can follow one verb, such as recipes, and its options as (name, help)."""

    summary: str
    words: Sequence[str]
    options: Sequence[tuple[str, str]]


def script(shell: str, verbs: Mapping[str, Completion]) -> str:
    """Return the completion script of all verbs for `shell`, one of SHELLS."""
    if shell == "fish":
        return "\n".join(["complete -c distgan -f -n __fish_use_subcommand", *_fish(verbs)])
    cases = []
    for verb, one in verbs.items():
        words = " ".join([*(f"--{name}" for name, _ in one.options), *one.words])
        cases.append(f'    {verb}) COMPREPLY=($(compgen -W {shlex.quote(words)} -- "$cur")) ;;')
    lines = ["autoload -Uz bashcompinit && bashcompinit"] if shell == "zsh" else []
    return "\n".join(
        [
            *lines,
            "_distgan() {",
            '  local cur="${COMP_WORDS[COMP_CWORD]}"',
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f'    COMPREPLY=($(compgen -W "{" ".join(verbs)}" -- "$cur"))',
            "    return",
            "  fi",
            '  case "${COMP_WORDS[1]}" in',
            *cases,
            "  esac",
            "}",
            "complete -o bashdefault -o default -F _distgan distgan",
        ]
    )


def _fish(verbs: Mapping[str, Completion]) -> list[str]:
    lines = []
    for verb, one in verbs.items():
        lines.append(
            f"complete -c distgan -n __fish_use_subcommand -a {verb} -d {shlex.quote(one.summary)}"
        )
        here = f"complete -c distgan -n '__fish_seen_subcommand_from {verb}'"
        lines += [f"{here} -l {name} -d {shlex.quote(help)}" for name, help in one.options]
        lines += [f"{here} -a {shlex.quote(' '.join(one.words))}"] if one.words else []
    return lines
