#!/bin/sh
# {{ firm }}: your desk. It holds your data, models, policy and audit log, and answers your own node
# at desk.sock. It opens no port. Ends with ./stop.sh or Ctrl-C.
{% include "head.sh" %}
{% set what = "desk" %}
{% set args = "simulations.deploy" %}
{% include "started.sh" %}
cd "$here"
exec "$PYTHON" -m simulations.deploy desk --firm {{ firm }} --folder "$here" \
    ${FEDPACT_SOCKET:+--socket "$FEDPACT_SOCKET"}
