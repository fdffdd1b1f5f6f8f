set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
run=${FEDPACT_RUN:-$here}  # where it keeps what it needs while it runs
# The Python that Fedpact is installed in: $PYTHON, else a .venv here or above, else python3.
for venv in "$here/.venv" "$here/../.venv" "$here/../../.venv"; do
    if [ -z "${PYTHON:-}" ] && [ -x "$venv/bin/python" ]; then PYTHON=$venv/bin/python; fi
done
PYTHON=${PYTHON:-python3}
{% if not stops is defined %}
beside=$(cd "$here" && "$PYTHON" -c 'import importlib.util, os, sys
print(os.path.dirname(sys.executable)) if importlib.util.find_spec("simulations") else sys.exit(1)
' 2> /dev/null) || {
    echo "$(basename "$0"): Fedpact is not installed in $PYTHON; make .venv as README.md says, or set PYTHON" >&2
    exit 2
}
PATH=$beside:$PATH  # Flower starts its helpers by name, so they must be found first
{% endif %}
FLWR_HOME=$run/flwr
FLWR_TELEMETRY_ENABLED=0
FLWR_DISABLE_UPDATE_CHECK=1
FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
RAY_USAGE_STATS_ENABLED=0
OMP_NUM_THREADS=1
FLWR_SUPEREXEC_TASK_POLL_INTERVAL=${FLWR_SUPEREXEC_TASK_POLL_INTERVAL:-0.1}  # seconds
PYTHONUNBUFFERED=1
export PATH FLWR_HOME FLWR_TELEMETRY_ENABLED FLWR_DISABLE_UPDATE_CHECK
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION RAY_USAGE_STATS_ENABLED OMP_NUM_THREADS
export PYTHONUNBUFFERED FLWR_SUPEREXEC_TASK_POLL_INTERVAL
mkdir -p "$FLWR_HOME"
