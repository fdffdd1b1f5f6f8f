#!/bin/sh
# {{ firm }}: your Flower node. It connects outwards to {{ address }}, proves with node.key that it
# is yours, and hands what it is asked to your desk. Ends with ./stop.sh or Ctrl-C.
{% include "head.sh" %}
{% set what = "supernode" %}
{% set args = "flower-supernode" %}
{% include "started.sh" %}
cd "$here"
case $here in
    *[\"\\]*) echo "supernode.sh: move this folder: its path has a quote or a backslash" >&2; exit 2 ;;
esac
port=${FEDPACT_NODE_PORT:-{{ node_port }}}
"$PYTHON" -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1])))' "$port" 2> /dev/null || {
    echo "supernode.sh: port $port of 127.0.0.1 cannot be opened; stop what has it, or set FEDPACT_NODE_PORT to a free one" >&2
    exit 2
}
exec flower-supernode \
    --superlink "${FEDPACT_OPERATOR:-{{ address }}}" \
    --root-certificates "$here/ca.crt" \
    --auth-supernode-private-key "$here/node.key" \
    --host 127.0.0.1 --port "$port" \
    --node-config "party=\"{{ firm }}\" desk=\"${FEDPACT_SOCKET:-$here/desk.sock}\""
