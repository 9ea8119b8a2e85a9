CREATE TABLE auth_tenant (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE auth_user (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    -- Trimmed and in lower case.
    email TEXT NOT NULL UNIQUE,
    -- PHC string.
    password_hash TEXT NOT NULL,
    is_admin BOOLEAN NOT NULL DEFAULT FALSE,
    tenant TEXT NOT NULL UNIQUE REFERENCES auth_tenant (id),
    created_at BIGINT NOT NULL
);

-- One row, locked by registrations: on PostgreSQL two of them must not both find an empty table.
CREATE TABLE auth_gate (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    registrations BIGINT NOT NULL
);
INSERT INTO auth_gate (id, registrations) VALUES (1, 0);

CREATE TABLE auth_session (
    id TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 of the cookie's secret, in hexadecimal.
    secret_hash TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES auth_user (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX auth_session_user ON auth_session (user_id);
CREATE INDEX auth_session_expires ON auth_session (expires_at);

CREATE TABLE auth_token (
    id TEXT NOT NULL PRIMARY KEY,
    secret_hash TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES auth_user (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- Names of scopes, joined by blanks.
    scopes TEXT NOT NULL,
    -- What the secret begins with.
    prefix TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    UNIQUE (user_id, name)
);

-- Failed attempts to prove a password, by a hash of what was attacked: the table names no account.
CREATE TABLE auth_attempt (
    account TEXT NOT NULL PRIMARY KEY,
    failures BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    blocked_until BIGINT NOT NULL
);

-- What access tokens are signed with; one slot today, so that replicas which start together agree.
CREATE TABLE auth_signing_key (
    slot BIGINT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    -- 32 bytes of Ed25519 in hexadecimal.
    public_key TEXT NOT NULL,
    -- PKCS#8, sealed.
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
