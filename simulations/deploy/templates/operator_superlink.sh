#!/bin/sh
# Operator: the SuperLink. Nodes reach it at port {{ port }}, nothing else is answered there; what
# steers it (register.sh, run.sh) goes through 127.0.0.1:{{ control_port }}. Ends with ./stop.sh or Ctrl-C.
{% include "head.sh" %}
{% set what = "superlink" %}
{% set args = "simulations.deploy" %}
{% include "started.sh" %}
cd "$here"
exec "$PYTHON" -m simulations.deploy superlink --folder "$here" \
    --port "${FEDPACT_PORT:-{{ port }}}" --control-port "${FEDPACT_CONTROL_PORT:-{{ control_port }}}"
