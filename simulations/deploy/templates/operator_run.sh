#!/bin/sh
# Operator: hold the study. Hands the app to the SuperLink and waits for the run's end; results are
# in run/. Exit status: 0 completed, 1 failed or stopped, 2 not started. Ctrl-C ends this script
# only; `./run.sh NUMBER` goes on waiting for a run.
{% include "head.sh" %}
{% include "connection.sh" %}
cd "$here"
number=${1:-}
if [ -z "$number" ]; then
    # The FOLDER that the app writes its results to.
    said=$(flwr run app fedpact --format json --run-config "folder='$here/run'" 2>&1) || {
        echo "$said" >&2
        exit 2
    }
    number=$(printf '%s' "$said" | "$PYTHON" -c '
import json, re, sys
print(json.loads(re.search(r"\{.*\}", sys.stdin.read(), re.DOTALL)[0])["run-id"])') || {
        echo "$said" >&2
        exit 2
    }
fi
echo "run $number: started"
last=
while :; do
    # A SuperLink that is being started again does not answer for a while.
    status=$(flwr ls fedpact --run-id "$number" --format json 2>/dev/null | "$PYTHON" -c '
import json, sys
print(json.load(sys.stdin)["runs"][0]["status"])' 2>/dev/null) || status="not known: the SuperLink does not answer"
    [ "$status" = "$last" ] || echo "run $number: $status"
    last=$status
    case $status in
        finished:completed) exit 0 ;;
        finished:*) exit 1 ;;
    esac
    sleep "${FEDPACT_POLL:-2}"
done
