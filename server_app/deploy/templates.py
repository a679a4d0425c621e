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
settings: []                 # digests of settings that somebody approved; empty: any allowed below
columns: []                  # columns that may be used; empty: all, if none says whose a row is
categories: {}               # COLUMN: [names in quotes]; runs may name these only
client: file                 # all of the data are one client | natural | a column that names them
held_out:                    # shares of rows that a run may hold out
  least: 0.05
  most: 0.5
privacy:
  mechanism: record_dp       # any: also runs without
  placement: local           # of client_dp's noise; central: the server adds it | any
  max_epsilon: 8.0
  delta: 1.0e-5
aggregation:
  mechanism: secagg          # any: also in the clear
  adversary: active          # any: also sums that hold off no server that cheats
  identities: pinned         # any: also keys that the server hands out
  min_cohort: 3
  threshold: 0.66            # 2/3 of a client's neighbours must agree before anything opens
limits:
  update_bytes: 50000000
  rounds: 100                # of one run
  evaluations: 100           # of one run
  epochs: 5
metrics:                     # of this silo alone, outside of secure sums
  allowed: [loss]
  min_rows: 20
  sums: false
quiet_hours: []              # as "22:00-06:00" or "sat-sun 00:00-24:00"
dry_run: false
"""

EXPERIMENT = """\
# Settings of a run that the kits' policy.yaml allows: fedproof federation=remote
# federation.superlink=$name federation.nodes=N $$(grep -v '^#' experiment), and what each silo
# checks with `fedproof deploy check`. All have the same file.
task=$task
rounds=5
privacy=record_dp
privacy.sigma=2.0
privacy.evaluation=noised
aggregation=secagg
aggregation.min_cohort=3
aggregation.threshold=0.66
$task_settings
"""

TASK_SETTINGS = {
    "tabular": """\
# Of a protected table nothing is told before training: name its columns, and what is no number.
task.scaling=local
task.target=TARGET
task.kind=binary
task.columns=[COLUMN,OTHER]
task.categories.OTHER=[a,b]
task.categories.TARGET=[no,yes]""",
    "synthetic": "",
    "finance": "task.scaling=local\ntask.min_rows=1",
}
LOCAL_SCALING = "task.scaling=local"

README = """\
The kit of $silo, a silo of $name.

1. fedproof deploy key .            makes node.key and identity.key, which never leave this machine;
                                    send node.pub and the line for the roster.
2. policy.yaml                      is yours: what any run may do here. Read it, change it.
3. roster                           the lines of all silos, in one file; compare `fedproof roster
                                    roster` by telephone.
4. fedproof deploy check . --data DATA
                                    says whether all is well, which rule refuses what of the run in
                                    `experiment`, and everything that run would tell the server.
5. DATA=/path sh start.sh           starts the SuperNode.

State, ledgers and logs come into this folder. It is yours alone (chmod 700), and git ignores all
but what has no secrets. Keep a copy of ledgers/: what is spent stays spent.
"""
