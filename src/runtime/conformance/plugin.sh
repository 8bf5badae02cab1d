#!/bin/sh
# The plugin of the conformance suite: does what it is told over its standard input, and notes in its data
# directory when it ran. What it is told to `tell` runs in a subshell, and what it is told to `act` in itself.
data=$PLUGIN_DATA_DIR
main=$$
stay=
pause() { sleep 0.05 2>/dev/null || sleep 1; }

run=1
until mkdir "$data/run-$run" 2>/dev/null; do
    run=$((run + 1))
    [ "$run" -lt 10000 ] || exit 9
done
own=$data/run-$run
# Those that have not noted their end: they were killed, or they still run.
for other in "$data"/run-*; do
    [ "$other" = "$own" ] || [ -e "$other/end" ] || echo "$other" >>"$own/open"
done
# Grows for as long as this process lives.
(
    while kill -0 "$main" 2>/dev/null; do
        echo >>"$own/beats"
        pause
    done
) </dev/null >/dev/null 2>&1 &
trap ': >"$own/end"' EXIT
trap 'echo INT >>"$own/signals"; exit 130' INT
trap 'echo TERM >>"$own/signals"; exit 143' TERM

# Prints which runs were not alone, and how often something of this name was written by other runs.
written() {
    for other in "$data"/run-*; do
        [ "$other" = "$own" ] || cat "$other/$1" 2>/dev/null
    done | wc -c
}
alone() {
    for later in "$data"/run-*; do
        [ -e "$later/open" ] || continue
        while read -r other; do
            [ ! -e "$other/end" ] || echo "${other##*/} had not ended when ${later##*/} began"
        done <"$later/open"
    done
    for what in beats children; do
        tries=0
        while :; do
            before=$(written "$what")
            pause; pause; pause; pause; pause; pause; pause; pause
            [ "$before" != "$(written "$what")" ] || break
            tries=$((tries + 1))
            [ "$tries" -lt 6 ] || { echo "a run before still writes its $what"; break; }
        done
    done
}

reply() {
    printf '{"jsonrpc":"2.0","id":"%s","result":{"method":"%s","pong":true,"said":"%s"}}\n' "$id" "$method" "$1"
}
echo "run $run is up" >&2
while IFS= read -r line; do
    id=${line#*'"id":"'}
    id=${id%%'"'*}
    method=${line#*'"method":"'}
    method=${method%%'"'*}
    what=${line#*'"what":"'}
    what=${what%'"}}'}
    case $method in
    tell) reply "$(eval "$what" 2>&1 | tr -d '"\\' | tr '\n' ' ')" ;;
    act)
        reply ''
        eval "$what"
        ;;
    *) reply '' ;;
    esac
done
while [ -n "$stay" ]; do pause; done
