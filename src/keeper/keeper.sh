# The keeper in plain POSIX sh: reads what the host tells on standard input, and when that ends kills
# what is left. `kill -9 -GROUP` is the one spelling that every sh takes.
trap '' INT TERM HUP
groups=' '
cookie=
while read -r word value; do
    case $word in
        cookie) cookie=$value ;;
        +) groups="$groups$value " ;;
        -) case $groups in
               *" $value "*) groups="${groups%% "$value" *} ${groups#* "$value" }" ;;
           esac ;;
        end) exit 0 ;;
    esac
done
{
    for group in $groups; do kill -9 "-$group"; done
    round=0
    while [ -n "$cookie" ] && [ "$round" -lt 100 ]; do
        found=
        for file in $(grep -ls "PLUGIN_RUNNER_COOKIE=$cookie[.]" /proc/[0-9]*/environ); do
            process=${file#/proc/}
            kill -9 "${process%/environ}" && found=yes
        done
        [ -n "$found" ] || break
        round=$((round + 1))
    done
} 2>/dev/null
