"""Completion scripts of the shells; each asks `patchmill __complete SHELL` for candidates.

If there are none, the shell completes files. A word that ends in = / : or . is unfinished, so no
space follows it.
"""

from __future__ import annotations

# The whole line goes to Python: bash itself splits words at = and :. Works from bash 3.2 on.
BASH = r"""# bash completion of patchmill
_patchmill() {
    local reply program="${1/#\~/$HOME}" line="${COMP_LINE:0:COMP_POINT}"
    COMPREPLY=()
    while IFS= read -r reply; do
        COMPREPLY+=("$reply")
    done < <("$program" __complete bash "$line" "$COMP_WORDBREAKS" 2>/dev/null)
}
complete -o nospace -o bashdefault -o default -F _patchmill patchmill
"""

ZSH = r"""#compdef patchmill
_patchmill() {
    local -a replies finished unfinished
    local reply text program="${words[1]/#\~/$HOME}"
    replies=(${(f)"$("$program" __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)"})
    for reply in $replies; do
        text="${reply%%$'\t'*}"
        if [[ $text == *[=/:.] ]]; then
            unfinished+=("${text//:/\\:}:${reply#*$'\t'}")
        else
            finished+=("${text//:/\\:}:${reply#*$'\t'}")
        fi
    done
    if (( $#finished + $#unfinished == 0 )); then
        compset -P '*='
        _files
        return
    fi
    (( $#finished )) && _describe -V patchmill finished
    (( $#unfinished )) && _describe -V patchmill unfinished -S ''
}
if [[ $funcstack[1] == _patchmill ]]; then _patchmill "$@"; else compdef _patchmill patchmill; fi
"""

FISH = r"""# fish completion of patchmill
function __patchmill_words
    set -l words (commandline -opc)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    set -e words[1]
    set -l current (commandline -ct)
    set -l replies ($program __complete fish $words "$current" 2>/dev/null)
    if set -q replies[1]
        printf '%s\n' $replies
    else
        set -l key (string match -r '^[^=]*=' -- $current)
        for path in (__fish_complete_path (string replace -r '^[^=]*=' '' -- $current))
            printf '%s\n' "$key$path"
        end
    end
end
complete -c patchmill -f -a '(__patchmill_words)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
