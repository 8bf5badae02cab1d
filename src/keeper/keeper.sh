# The keeper in plain POSIX sh: reads what the host tells on standard input, and when that ends kills
# what is left. `kill -9 -GROUP` is the one spelling that every sh takes.
trap '' INT TERM HUP
groups=' '
cookie=
while read -r word value; do
    case $word in
        cookie) cookie=$value ;;
        +) case $groups in
               *" $value "*) ;;
               *) groups="$groups$value " ;;
           esac ;;
        -) case $groups in
               *" $value "*) groups="${groups%% "$value" *} ${groups#* "$value" }" ;;
           esac ;;
        end) exit 0 ;;
    esac
done
{
    for group in $groups; do kill -9 "-$group"; done
    [ -n "$cookie" ] || exit 0
    # How much of this is read, and how long it takes, is not for the processes to decide: five seconds in
    # all, and so many bytes of each environment. This shell leads its own process group.
    (sleep 5; kill -9 0) &
    # All at once, which takes an instant, unless a process presents more than there is room and time for.
    for file in $(
        ulimit -v 200000; ulimit -t 1
        exec grep -lsz "^PLUGIN_RUNNER_COOKIE=$cookie[.]" /proc/[0-9]*/environ
    ); do
        process=${file#/proc/}
        kill -9 "${process%/environ}"
    done
    # One after the other, whatever they present. A process that is just executing another program shows no
    # environment: several looks, over a second.
    empty=0
    while [ "$empty" -lt 4 ]; do
        empty=$((empty + 1))
        for file in /proc/[0-9]*/environ; do
            head -c 8388608 "$file" | grep -qz "^PLUGIN_RUNNER_COOKIE=$cookie[.]" || continue
            process=${file#/proc/}
            kill -9 "${process%/environ}" && empty=0
        done
        sleep 0.25 || sleep 1
    done
    kill -9 0
} 2>/dev/null
