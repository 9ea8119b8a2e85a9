-- Lists are in the order of bytes on both engines, whatever the database's own language is.
ALTER TABLE workloads_tenant ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE workloads_host ALTER COLUMN name TYPE TEXT COLLATE "C";
ALTER TABLE workloads_sandbox ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE workloads_service ALTER COLUMN name TYPE TEXT COLLATE "C";
ALTER TABLE workloads_session ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE workloads_secret ALTER COLUMN name TYPE TEXT COLLATE "C";
ALTER TABLE workloads_volume ALTER COLUMN name TYPE TEXT COLLATE "C";
