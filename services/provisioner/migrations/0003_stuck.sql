-- Looked at every few seconds.
CREATE INDEX provisioner_saga_stuck ON provisioner_saga (updated_at) WHERE state = 'stuck';
