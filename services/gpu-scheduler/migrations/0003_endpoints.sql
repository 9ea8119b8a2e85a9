-- The key of each box' own endpoint, sealed like the one in use, so that another box can take its place.
ALTER TABLE gpu_worker ADD COLUMN inference_key TEXT;
