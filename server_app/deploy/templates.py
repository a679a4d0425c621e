"""The files of a kit, with ``$NAME`` where the federation's own values go."""

from __future__ import annotations

SUPERLINK = """\
#!/bin/sh
# The SuperLink of $name. Its database keeps runs and registered silos across restarts.
set -e
cd "$$(dirname "$$0")"
mkdir -p home && chmod 700 home
export FLWR_HOME="$$PWD/home" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FEDPROOF_RUNS="$$PWD/runs"
exec flower-superlink --host "$${HOST:-0.0.0.0}" --port "$${PORT:-$port}" \\
  --ssl-ca-certfile ca.crt --ssl-certfile server.pem --ssl-keyfile server.key \\
  --enable-supernode-auth --database superlink.db --disable-runtime-dependency-installation
"""

SUPERNODE = """\
#!/bin/sh
# $silo, a silo of $name. Usage: DATA=/path/to/the/data ./start.sh
set -e
cd "$$(dirname "$$0")"
: "$${DATA:?give the data: DATA=/path ./start.sh}"
umask 077
mkdir -p home
export FLWR_HOME="$$PWD/home"
told="data=\\"$$DATA\\" client=\\"$silo\\" policy=\\"$$PWD/policy.yaml\\" state=\\"$$PWD/state\\""
told="$$told ledger=\\"$$PWD/ledgers\\" audit=\\"$$PWD/audit.jsonl\\""
told="$$told identity=\\"$$PWD/identity.key\\""
[ -f roster ] && told="$$told roster=\\"$$PWD/roster\\""
exec fedproof supernode --superlink "$${SUPERLINK:-$endpoint}" --root-certificates ca.crt \\
  --auth-supernode-private-key node.key --node-config "$$told"
"""

UNIT = """\
[Unit]
Description=$what
After=network-online.target
Wants=network-online.target

[Service]
User=fedproof
WorkingDirectory=/opt/fedproof/$folder
EnvironmentFile=-/opt/fedproof/$folder/environment
Environment=PATH=/opt/fedproof/venv/bin:/usr/bin:/bin
ExecStart=/bin/sh /opt/fedproof/$folder/start.sh
# Not on failure alone: a SuperNode whose signatures are refused, by its clock say, ends with 0.
Restart=always
RestartSec=10
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
ReadWritePaths=/opt/fedproof/$folder

[Install]
WantedBy=multi-user.target
"""

COMPOSE = """\
# docker compose up -d, with CHECKOUT=/path: a checkout of fedproof, of which the image is built.
# Once before: chown -R 10001 . (the user in the container; it alone may read the keys).
services:
  $service:
    build:
      context: $${CHECKOUT:?the checkout of fedproof}
      dockerfile: server_app/deploy/Dockerfile
    user: "10001"
    working_dir: /kit
    command: ["/bin/sh", "/kit/start.sh"]
    restart: unless-stopped
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    volumes:
      - .:/kit
"""
COMPOSE_SERVER = (
    COMPOSE
    + """\
    ports: ["$port:$port"]
"""
)
COMPOSE_SILO = (
    COMPOSE
    + """\
      - $${DATA:?the data}:/data:ro
    environment: {DATA: /data}
"""
)

NGINX = """\
# Only what SuperNodes use is let through: who submits runs does so on the SuperLink's own machine.
# HOST=127.0.0.1 PORT=8443 ./start.sh, and that port in home/config.toml. Goes into conf.d/.
server {
  listen $port ssl;
  server_name $address;
  ssl_certificate /opt/fedproof/server/server.pem;
  ssl_certificate_key /opt/fedproof/server/server.key;
  ssl_protocols TLSv1.3;
  client_max_body_size 64m;

  location /v1/fleet/ {
    proxy_pass https://127.0.0.1:8443;
    proxy_ssl_trusted_certificate /opt/fedproof/server/ca.crt;
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    proxy_read_timeout 120s;
  }
  location / { return 404; }
}
"""

CONNECTION = """\
[superlink]
default = "$name"

[superlink.$name]
address = "127.0.0.1:$port"
root-certificates = "$ca"
"""

POLICY = """\
# What any run may do here, whoever asks; what is left out has a strict default (docs/deploy.md).
tasks: [$task]
code: []                     # digests of `fedproof deploy check`; empty: whatever is installed here
columns: []                  # columns that may be used; empty: all
privacy:
  mechanism: record_dp       # any: also runs without
  max_epsilon: 8.0
  delta: 1.0e-5
aggregation:
  mechanism: secagg          # any: also in the clear
  min_cohort: 3
  threshold: 0.5
limits:
  update_bytes: 50000000
  rounds: 100
  epochs: 5
metrics:                     # of this silo alone, outside of secure sums
  allowed: [loss]
  min_rows: 20
  sums: false
quiet_hours: []              # as "22:00-06:00" or "sat-sun 00:00-24:00"
dry_run: false
"""
