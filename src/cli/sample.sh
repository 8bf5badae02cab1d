#!/bin/bash
# The built-in sample plugin for places where this program itself is not: it says hello, answers, and crashes once.

say() { printf '%s\n' "$1"; }

answer() { printf '{"jsonrpc":"2.0","id":"%s",%s}\n' "$id" "$1"; }

crashed_once=$PLUGIN_DATA_DIR/crashed-once
say 'hello, I am running'
if [[ -e $crashed_once ]]; then
    say 'I crashed once already, so from now on I keep running'
fi
while IFS= read -r message; do
    [[ $message =~ \"id\":\"([0-9a-v]+)\" ]] || continue
    id=${BASH_REMATCH[1]}
    [[ $message =~ \"method\":\"([a-z_]+)\" ]] || continue
    case ${BASH_REMATCH[1]} in
    ping)
        say 'answered a ping'
        answer "\"result\":{\"pong\":true,\"uptime_seconds\":$SECONDS,\"status\":\"healthy\"}"
        ;;
    greet)
        say 'greeted the world'
        answer '"result":{"greeting":"hello, world"}'
        ;;
    *)
        answer '"error":{"code":-32601,"message":"method not found"}'
        ;;
    esac
    if [[ ! -e $crashed_once ]] && ((SECONDS >= 2)); then
        : >"$crashed_once"
        say 'I crash now, once, to show that I am started again'
        exit 1
    fi
done
