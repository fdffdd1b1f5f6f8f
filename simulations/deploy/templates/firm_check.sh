#!/bin/sh
# {{ firm }}: before you join. Prints the study's sha256 and all that is wrong with the study, your data
# or your policy, and what would leave. Nothing leaves this machine. Exit status 1: mend something.
{% include "head.sh" %}
cd "$here"
exec "$PYTHON" -m simulations.deploy check --firm {{ firm }} --folder "$here" "$@"
