# Print zsh's completions after the line in $2, with the script in the folder $1, one a line.
zmodload zsh/zpty || exit 3
export FOLDER=$1
zpty asked zsh -f -i
setup=$FOLDER/setup.zsh
cat >$setup <<'SETUP'
PROMPT=
fpath=($FOLDER $fpath)
autoload -Uz compinit
compinit -u -d $FOLDER/zcompdump
bindkey '^M' undefined
bindkey '^J' undefined
bindkey '^I' complete-word
mark () { print -r -- $'\0' }
compprefuncs=(mark)
comppostfuncs=(mark exit)
zstyle ':completion:*' insert-tab false
compadd () {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return $?
    fi
    local -a found
    builtin compadd -A found "$@"
    (( $#found )) && print -rl -- $found
}
print ready
SETUP
zpty -w asked "source $setup"
repeat 6; do zpty -r asked line; [[ $line == *ready* && $line != *source* ]] && break; done
zpty -w asked "$2"$'\t'
integer marks=0
while zpty -r asked line; do
    for each in ${(f)line}; do
        each=${each%$'\r'}
        if [[ $each == *$'\0'* ]]; then (( ++marks == 2 )) && exit 0; continue; fi
        (( marks )) && print -r -- $each
    done
done
