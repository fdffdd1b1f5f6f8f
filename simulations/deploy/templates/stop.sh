# Ends a process by the number that its script noted, and waits: 10 s for it to end, then by force.
end() {
    [ -f "$run/$1.pid" ] || return 0
    pid=$(cat "$run/$1.pid")
    # The number may be another process's by now.
    case $(ps -o args= -p "$pid" 2>/dev/null) in
        *"$2"*) ;;
        *) rm -f "$run/$1.pid"; return 0 ;;
    esac
    kill -TERM "$pid" 2>/dev/null || true
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -KILL "$pid" 2>/dev/null || true
    rm -f "$run/$1.pid"
    echo "stopped: $1"
}
