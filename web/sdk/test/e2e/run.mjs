// Runs the end-to-end tests of the SDKs against a real server.
//
//   node test/e2e/run.mjs [FILTER…]     FILTER chooses test files, as vitest takes it
//
//   NIMBUS_ENDPOINT, NIMBUS_TOKEN   the server; without them $NIMBUS_BIN (target/debug/nimbus) is started on a free port
//   NIMBUS_TEST_IMAGE               an image with sh and the usual tools; default nimbus.test/busybox:1 (ops/dev/engine.sh images)
//   NIMBUS_TEST_DESKTOP_IMAGE       one with Chromium (ops/dev/engine.sh images desktop); without it desktops are left out
//   NIMBUS_E2E_PYTHON               a Python with the packages of ops/dev/requirements.txt; default target/venv/bin/python
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { BINARY, ROOT, Server } from "./server.mjs";

const sdk = path.resolve(import.meta.dirname, "../..");

async function run(command, args, cwd, env) {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: "inherit" });
  const [code] = await once(child, "exit");
  return code === 0;
}

const { NIMBUS_ENDPOINT: url, NIMBUS_TOKEN: token } = process.env;
const server = url && token ? undefined : await Server.start();
const env = {
  NIMBUS_ENDPOINT: server?.url ?? url,
  NIMBUS_TOKEN: server?.token ?? token,
  NIMBUS_TEST_IMAGE: process.env.NIMBUS_TEST_IMAGE ?? "nimbus.test/busybox:1",
  ...(server === undefined ? {} : { NIMBUS_BIN: BINARY }),
};
const filters = process.argv.slice(2);
const python = process.env.NIMBUS_E2E_PYTHON ?? path.join(ROOT, "target/venv/bin/python");
const passed = [await run("npx", ["vitest", "run", ...(filters.length === 0 ? ["test/e2e"] : filters)], sdk, env)];
if (filters.length === 0) passed.push(await run(python, ["-m", "pytest", "-q", "-k", "real_server"], path.join(ROOT, "clients/python"), env));
const failed = passed.includes(false);
if (server !== undefined && failed) {
  fs.mkdirSync(path.join(ROOT, "tests/output"), { recursive: true });
  fs.copyFileSync(server.log, path.join(ROOT, "tests/output/sdk-e2e-server.log"));
}
await server?.remove();
process.exitCode = failed ? 1 : 0;
