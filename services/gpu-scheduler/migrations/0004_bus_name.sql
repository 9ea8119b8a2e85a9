-- The name by which the bus knows a box. Each pairing gives a new one, so that a credential of an earlier pairing
-- speaks for nobody. Boxes paired before have their own name there.
ALTER TABLE gpu_worker ADD COLUMN bus_name TEXT NOT NULL DEFAULT '';
UPDATE gpu_worker SET bus_name = name;
CREATE UNIQUE INDEX gpu_worker_bus_name ON gpu_worker (bus_name);
