-- Machines. A row exists from the order until the machine is gone; hostname and number are unique among them.
CREATE TABLE provisioner_machine (
    id            TEXT   NOT NULL PRIMARY KEY,
    owner         TEXT   NOT NULL,
    tenant        TEXT   NOT NULL,
    hostname      TEXT   NOT NULL UNIQUE,
    tier          TEXT   NOT NULL,
    os            TEXT   NOT NULL,
    status        TEXT   NOT NULL,
    vmid          BIGINT UNIQUE,
    ip            TEXT,
    node          TEXT,
    key_name      TEXT,
    ssh_pubkey    TEXT   NOT NULL,
    tunnel_error  TEXT,
    error_msg     TEXT,
    operation     TEXT,
    missed_cycles BIGINT NOT NULL DEFAULT 0,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);
CREATE INDEX provisioner_machine_owner ON provisioner_machine (owner, id);
CREATE INDEX provisioner_machine_status ON provisioner_machine (status);

-- How many machines each owner has; a slot is taken in the transaction that writes the row.
CREATE TABLE provisioner_quota (
    owner TEXT   NOT NULL PRIMARY KEY,
    used  BIGINT NOT NULL CHECK (used >= 0)
);

-- Operations, as their owners see them. The saga tables below say how far each really is.
CREATE TABLE provisioner_operation (
    id          TEXT   NOT NULL PRIMARY KEY,
    kind        TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    owner       TEXT   NOT NULL,
    machine     TEXT   NOT NULL,
    hostname    TEXT   NOT NULL,
    steps       TEXT   NOT NULL,
    result      TEXT,
    fault       TEXT,
    key_name    TEXT,
    private_key TEXT,
    created_at  BIGINT NOT NULL,
    started_at  BIGINT,
    finished_at BIGINT,
    trace_parent TEXT
);
CREATE INDEX provisioner_operation_owner ON provisioner_operation (owner, id);

-- Which operation a caller's idempotency key made, and a hash of what was asked with it.
CREATE TABLE provisioner_request (
    owner      TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    hash       TEXT   NOT NULL,
    operation  TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (owner, key)
);

CREATE TABLE provisioner_outbox (
    id         TEXT   NOT NULL PRIMARY KEY,
    body       TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);
