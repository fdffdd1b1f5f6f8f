#!/bin/sh
# Operator: tell the SuperLink whose nodes to hear: every nodes/<firm>.pub. The number that it gives
# a node is kept as nodes/<firm>.id. Once is enough; a key that it knows already stays as it is.
#   ./register.sh               register them
#   ./register.sh remove FIRM   hear FIRM's node no longer, for example when its key was stolen
# Exit status 1: a firm of the study is not registered; it says which, and the others are.
{% include "head.sh" %}
{% include "connection.sh" %}
cd "$here"
if [ "${1:-}" = remove ]; then
    firm=${2:?"which firm?"}
    flwr supernode unregister "$(cat "nodes/$firm.id")" fedpact
    mv "nodes/$firm.pub" "nodes/$firm.pub.removed"
    rm "nodes/$firm.id"
    exit 0
fi
# A SuperLink that was started a moment ago does not answer yet.
tries=0
until flwr supernode list fedpact --format json > /dev/null 2>&1 || [ $tries -ge 20 ]; do
    tries=$((tries + 1))
    sleep 1
done
failed=0
for key in nodes/*.pub; do
    [ -f "$key" ] || continue
    firm=$(basename "$key" .pub)
    said=$(flwr supernode register "$key" fedpact --name "$firm" --format json 2>&1) || true
    number=$(printf '%s' "$said" | sed -n 's/.*"node-id": *"\{0,1\}\([0-9][0-9]*\).*/\1/p')
    if [ -n "$number" ]; then
        # It took the place of a key that was registered before.
        old=$(cat "nodes/$firm.id" 2>/dev/null) || old=
        if [ -n "$old" ] && flwr supernode unregister "$old" fedpact > /dev/null 2>&1; then
            echo "$firm: heard no longer as $old"
        fi
        echo "$number" > "nodes/$firm.id"
        echo "$firm: registered as $number"
    elif printf '%s' "$said" | grep -q "already in use" && [ -f "nodes/$firm.id" ]; then
        echo "$firm: known already"
    elif printf '%s' "$said" | grep -q "already in use"; then
        echo "$firm: not registered: this key was removed before, or is another firm's; it has to make new ones" >&2
        failed=1
    else
        echo "$firm: not registered: $said" >&2
        failed=1
    fi
done
for firm in {{ firms | join(" ") }}; do
    if [ ! -f "nodes/$firm.pub" ]; then
        echo "$firm: not registered: there is no nodes/$firm.pub. Put its node.pub there, and start this again" >&2
        failed=1
    fi
done
exit $failed
