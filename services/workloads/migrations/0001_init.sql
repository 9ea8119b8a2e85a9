CREATE TABLE workloads_tenant (
    id TEXT NOT NULL PRIMARY KEY,
    -- The user who made it; none for those that the operator made.
    owner TEXT,
    created_at BIGINT NOT NULL,
    -- 1 while it is being deleted: nothing new is taken in.
    deleting BIGINT NOT NULL DEFAULT 0 CHECK (deleting IN (0, 1)),
    -- Bounds on sums; NULL: the installation's default.
    limit_cpu BIGINT, limit_memory BIGINT, limit_disk BIGINT, limit_log BIGINT, limit_pids BIGINT,
    limit_sandboxes BIGINT,
    -- Words joined by commas; NULL: the installation's default.
    policy TEXT,
    -- What active sandboxes are charged with. Changed in the transaction that changes the sandbox.
    used_cpu BIGINT NOT NULL DEFAULT 0, used_memory BIGINT NOT NULL DEFAULT 0, used_disk BIGINT NOT NULL DEFAULT 0,
    used_log BIGINT NOT NULL DEFAULT 0, used_pids BIGINT NOT NULL DEFAULT 0,
    used_sandboxes BIGINT NOT NULL DEFAULT 0,
    open_sessions BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX workloads_tenant_owner ON workloads_tenant (owner, id);

CREATE TABLE workloads_host (
    name TEXT NOT NULL PRIMARY KEY,
    boot TEXT NOT NULL,
    -- JSON.
    facts TEXT NOT NULL,
    images TEXT NOT NULL,
    warm TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    lost BIGINT NOT NULL DEFAULT 0 CHECK (lost IN (0, 1)),
    used_cpu BIGINT NOT NULL DEFAULT 0, used_memory BIGINT NOT NULL DEFAULT 0, used_disk BIGINT NOT NULL DEFAULT 0,
    sandboxes BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE workloads_sandbox (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- The service it belongs to, if it is one's.
    service TEXT,
    -- The API key that made it, if one did.
    made_by TEXT,
    host TEXT NOT NULL,
    lifecycle TEXT NOT NULL,
    -- 1 while it counts against its tenant and its host.
    charged BIGINT NOT NULL CHECK (charged IN (0, 1)),
    -- Why it shall end, a condition's reason; NULL: it shall run.
    stop_reason TEXT,
    -- 1 once its host has taken it.
    launched BIGINT NOT NULL DEFAULT 0 CHECK (launched IN (0, 1)),
    -- Until then the launch is somebody's.
    launch_until BIGINT NOT NULL,
    -- The last observation: which start of the agent, its number, when.
    boot TEXT,
    sequence BIGINT NOT NULL DEFAULT 0,
    observed_at BIGINT NOT NULL DEFAULT 0,
    cpu BIGINT NOT NULL, memory BIGINT NOT NULL, disk BIGINT NOT NULL, log BIGINT NOT NULL, pids BIGINT NOT NULL,
    profile TEXT NOT NULL,
    -- JSON: labels, what it shall be as it may be shown, what it is.
    labels TEXT NOT NULL,
    spec TEXT NOT NULL,
    status TEXT NOT NULL,
    -- Sealed JSON of the launch; empty once it has ended.
    launch TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT,
    ended_at BIGINT,
    version BIGINT NOT NULL,
    CHECK (charged = 1 OR ended_at IS NOT NULL)
);
CREATE INDEX workloads_sandbox_tenant ON workloads_sandbox (tenant, id);
CREATE INDEX workloads_sandbox_host ON workloads_sandbox (host) WHERE charged = 1;
CREATE INDEX workloads_sandbox_launch ON workloads_sandbox (launch_until) WHERE charged = 1 AND launched = 0;
CREATE INDEX workloads_sandbox_ended ON workloads_sandbox (ended_at) WHERE charged = 0;

CREATE TABLE workloads_label (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, tenant, name, label)
);
CREATE INDEX workloads_label_value ON workloads_label (kind, tenant, label, value, name);

CREATE TABLE workloads_service (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    generation BIGINT NOT NULL CHECK (generation >= 1),
    is_static BIGINT NOT NULL DEFAULT 0 CHECK (is_static IN (0, 1)),
    -- The API key of the last writer, if it was one.
    made_by TEXT,
    kind TEXT NOT NULL CHECK (kind IN ('sandbox', 'builtIn', 'external')),
    labels TEXT NOT NULL,
    -- JSON of the backend as it may be shown.
    shown TEXT NOT NULL,
    -- Sealed JSON of the backend with its launch input.
    definition TEXT NOT NULL,
    -- What is wanted: 1 that it runs.
    wanted BIGINT NOT NULL DEFAULT 0 CHECK (wanted IN (0, 1)),
    -- The sandbox behind it, also one that has ended, and the generation it was made from.
    sandbox TEXT,
    sandbox_generation BIGINT NOT NULL DEFAULT 0,
    -- A sandbox before it that has to end first.
    drain TEXT,
    -- Why it could not be started, as JSON of a condition.
    failure TEXT,
    -- JSON of what was found out about an external one.
    probe TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE INDEX workloads_service_open ON workloads_service (tenant, name) WHERE drain IS NOT NULL OR (wanted = 1 AND sandbox IS NULL);
CREATE INDEX workloads_service_external ON workloads_service (tenant, name) WHERE kind = 'external';

CREATE TABLE workloads_session (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    service TEXT,
    -- The sandbox that its channels lead to.
    sandbox TEXT NOT NULL,
    host TEXT NOT NULL,
    -- The API key that made that sandbox, if one did.
    made_by TEXT,
    state TEXT NOT NULL CHECK (state IN ('open', 'closed', 'expired')),
    -- JSON: target, snapshot, channels, conditions.
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    closed_at BIGINT,
    close_reason TEXT,
    version BIGINT NOT NULL
);
CREATE INDEX workloads_session_tenant ON workloads_session (tenant, id);
CREATE INDEX workloads_session_open ON workloads_session (expires_at) WHERE state = 'open';
CREATE INDEX workloads_session_sandbox ON workloads_session (sandbox) WHERE state = 'open';
CREATE INDEX workloads_session_closed ON workloads_session (closed_at) WHERE state <> 'open';

CREATE TABLE workloads_ticket (
    -- SHA-256 of the ticket, in hexadecimal.
    hash TEXT NOT NULL PRIMARY KEY,
    session TEXT NOT NULL,
    -- Sealed.
    token TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE workloads_secret (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    -- Sealed.
    value TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE workloads_volume (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    -- NULL until it was first mounted.
    host TEXT,
    deleting BIGINT NOT NULL DEFAULT 0 CHECK (deleting IN (0, 1)),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE workloads_mount (
    tenant TEXT NOT NULL,
    volume TEXT NOT NULL,
    sandbox TEXT NOT NULL,
    PRIMARY KEY (tenant, volume, sandbox)
);
CREATE INDEX workloads_mount_sandbox ON workloads_mount (sandbox);

-- What was done under a caller's key, so that a repeat does not do it again.
CREATE TABLE workloads_done (
    tenant TEXT NOT NULL,
    method TEXT NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    outcome TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (tenant, method, key)
);
CREATE INDEX workloads_done_at ON workloads_done (at);

-- Keys of our own, sealed.
CREATE TABLE workloads_key (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE workloads_outbox (id TEXT PRIMARY KEY, body TEXT NOT NULL, created_at BIGINT NOT NULL);
