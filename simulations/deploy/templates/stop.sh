# Whether a process runs, and is what we take it for: the number may be another's by now.
is_ours() {
    case $(ps -o args= -p "$1" 2>/dev/null) in
        *"$2"*) return 0 ;;
        *) return 1 ;;
    esac
}

# Ends a process by the number that its script noted: 10 s for it to end by itself, then by force.
end() {
    [ -f "$run/$1.pid" ] || return 0
    pid=$(cat "$run/$1.pid")
    rm -f "$run/$1.pid"
    is_ours "$pid" "$2" || return 0
    kill -TERM "$pid" 2>/dev/null || true
    tries=0
    while is_ours "$pid" "$2" && [ $tries -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -KILL "$pid" 2>/dev/null || true
    # Flower's helper would end too, but only after its next try to reach what has ended.
    ps -eo pid=,args= | while read -r helper args; do
        case "$args " in
            *flower-superexec*"--parent-pid $pid "*) kill -TERM "$helper" 2>/dev/null || true ;;
        esac
    done
    echo "stopped: $1"
}
