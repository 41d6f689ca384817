"""`zoo completion`: prints the shell code that completes verbs, groups, names and keys."""

from __future__ import annotations

import argparse

from zoo.commands import VERBS, until_reader_leaves
from zoo.commands._parsing import Parser

HYDRA_VERBS = ("train", "eval", "embed", "index", "search", "serve", "rerank", "score")

_BASH = """\
_zoo_complete() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" verb="${{COMP_WORDS[1]}}" choices
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
        return
    fi
    case "$verb" in
        {hydra_verbs})
            word="${{COMP_LINE##* }}"
            choices=$(zoo completion bash --words "$verb" "${{COMP_WORDS[@]:2:COMP_CWORD-2}}" "$word" 2>/dev/null)
            local IFS=$'\\n'
            COMPREPLY=($choices)
            ;;
        info)
            choices=$(zoo list 2>/dev/null | awk '/^  /{{print $1}}')
            COMPREPLY=($(compgen -W "{kinds} $choices" -- "$word"))
            ;;
        copy)
            if [[ $word == */* ]]; then
                choices=$(zoo copy --names "${{word%%/*}}" 2>/dev/null)
            else
                choices=$(zoo copy --names 2>/dev/null)
            fi
            COMPREPLY=($(compgen -W "$choices" -- "$word"))
            ;;
        list) COMPREPLY=($(compgen -W "{kinds} --check" -- "$word")) ;;
    esac
}}
COMP_WORDBREAKS=${{COMP_WORDBREAKS//=}}
complete -o nospace -o default -F _zoo_complete zoo
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    from zoo.registry import KINDS

    parser = Parser("completion", 'Use it as: eval "$(zoo completion bash)"')
    parser.add_argument("shell", choices=("bash", "zsh"))
    parser.add_argument("--words", nargs=argparse.REMAINDER, help="print what the last of these words may become")
    arguments = parser.parse_args()
    if arguments.words:
        from zoo.commands._completing import candidates

        verb, *before = arguments.words
        print(*candidates(verb, before[:-1], before[-1] if before else ""), sep="\n")
        return
    shell = arguments.shell
    script = _BASH.format(verbs=" ".join(VERBS), hydra_verbs="|".join(HYDRA_VERBS), kinds=" ".join(KINDS))
    print((_ZSH if shell == "zsh" else "") + script, end="")


if __name__ == "__main__":
    main()
