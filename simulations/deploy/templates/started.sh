# A number that was left behind may be another process's by now, or this one's (in a container).
old=$(cat "$run/{{ what }}.pid" 2>/dev/null) || old=
if [ -n "$old" ] && [ "$old" != $$ ]; then
    case $(ps -o args= -p "$old" 2>/dev/null) in
        *"{{ args }}"*)
            echo "{{ what }}.sh: it runs already, as process $old; ./stop.sh ends it" >&2
            exit 1
            ;;
    esac
fi
echo $$ > "$run/{{ what }}.pid"
