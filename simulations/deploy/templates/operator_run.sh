#!/bin/sh
# Operator: hold the study with the firms whose nodes are connected, to the verdict in run/. A run
# that was killed is handed in again, and goes on. Exit status: 0 a verdict, 2 what has to be mended.
# Ctrl-C ends this script only; start it again to go on.
{% include "head.sh" %}
{% include "connection.sh" %}
cd "$here"
exec "$PYTHON" -m simulations.deploy operate --folder "$here" "$@"
