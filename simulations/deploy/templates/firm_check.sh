#!/bin/sh
# {{ firm }}: before you join. Compares the study with its sha256 and reports on your own data.
# Nothing leaves this machine.
{% include "head.sh" %}
cd "$here"
"$PYTHON" - <<'EOF'
import hashlib
import pathlib
import sys

found = hashlib.sha256(pathlib.Path("study.json").read_bytes()).hexdigest()
said = pathlib.Path("study.sha256").read_text().split()[0]
print("study    study.json")
print("sha256  ", found)
if found != said:
    sys.exit("study.json is not the one of study.sha256: ask the operator for both again")
EOF
exec "$PYTHON" -m simulations.deploy check --firm {{ firm }} --folder "$here"
