-- Keys of programs. Whoever made one may be the operator, who is no user: nothing refers to auth_user.
CREATE TABLE auth_key (
    id TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 of the key, in hexadecimal.
    secret_hash TEXT NOT NULL UNIQUE,
    -- Where it was made; tenants are kept elsewhere.
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    -- JSON.
    grants TEXT NOT NULL,
    -- What the key begins with.
    prefix TEXT NOT NULL,
    user_id TEXT NOT NULL,
    user_tenant TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    UNIQUE (tenant, name)
);
