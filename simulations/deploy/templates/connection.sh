# How Flower's command reaches the SuperLink: the port that is open on this machine only.
cat > "$FLWR_HOME/config.toml" <<EOF
[superlink]
default = "fedpact"

[superlink.fedpact]
address = "127.0.0.1:${FEDPACT_CONTROL_PORT:-{{ control_port }}}"
root-certificates = "$here/ca.crt"
EOF
