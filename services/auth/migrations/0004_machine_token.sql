-- Tokens inside machines, one for each. The owner may be the operator, who is no user: nothing refers to auth_user.
CREATE TABLE auth_machine_token (
    machine TEXT NOT NULL PRIMARY KEY,
    -- Names the token in access tokens and revocations: a machine that gets another one keeps its own id.
    id TEXT NOT NULL UNIQUE,
    -- SHA-256 of the secret, in hexadecimal.
    secret_hash TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT
);
