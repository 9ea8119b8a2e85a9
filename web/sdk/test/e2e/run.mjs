// Runs the end-to-end tests of the SDKs against a real server.
//
//   node test/e2e/run.mjs [FILTER…]     FILTER chooses test files, as vitest takes it
//
//   NIMBUS_ENDPOINT, NIMBUS_TOKEN   the server; without them $NIMBUS_BIN (target/debug/nimbus) is started on a free port
//   NIMBUS_TEST_IMAGE               an image with sh and the usual tools; default nimbus.test/busybox:1 (ops/dev/engine.sh images)
//   NIMBUS_E2E_PYTHON               a Python with the packages of ops/dev/requirements.txt; default target/venv/bin/python
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const sdk = path.resolve(import.meta.dirname, "../..");
const root = path.resolve(sdk, "../..");
const binary = path.resolve(process.env.NIMBUS_BIN ?? path.join(root, "target/debug/nimbus"));
const READY_MS = 60_000;

/** Starts a server of our own; everything of it is in one folder. */
async function start() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "nimbus-sdk-e2e-"));
  const ready = path.join(folder, "ready.json");
  const log = path.join(folder, "server.log");
  const env = { PATH: process.env.PATH, HOME: folder, XDG_RUNTIME_DIR: folder, NIMBUS_DATA_DIR: path.join(folder, "data"), DOCKER_HOST: process.env.DOCKER_HOST ?? "" };
  for (const name of Object.keys(process.env)) if (/^NIMBUS_(SANDBOX|WORKLOADS|LOG|EGRESS)/.test(name)) env[name] = process.env[name];
  if (env.DOCKER_HOST === "") delete env.DOCKER_HOST;
  // Requests come as fast as tests can send them.
  Object.assign(env, { RATE_LIMIT_ADDRESS_PER_SECOND: "0", RATE_LIMIT_USER_PER_SECOND: "0" });
  const output = fs.openSync(log, "a");
  const child = spawn(binary, ["start", "--host", "127.0.0.1", "--port", "0", "--ready-file", ready], { cwd: folder, env, stdio: ["ignore", output, output] });
  fs.closeSync(output);
  process.once("exit", () => child.kill("SIGKILL"));
  const until = Date.now() + READY_MS;
  while (!fs.existsSync(ready) || fs.readFileSync(ready, "utf8") === "") {
    if (child.exitCode !== null || Date.now() > until) throw new Error(`the server did not get ready:\n${fs.readFileSync(log, "utf8")}`);
    await pause(50);
  }
  const { url } = JSON.parse(fs.readFileSync(ready, "utf8"));
  const token = execFileSync(binary, ["auth", "token"], { env, encoding: "utf8" }).trim();
  const stop = async (failed) => {
    const gone = child.exitCode === null ? once(child, "exit") : undefined;
    child.kill("SIGTERM");
    await gone;
    if (failed) {
      fs.mkdirSync(path.join(root, "tests/output"), { recursive: true });
      fs.copyFileSync(log, path.join(root, "tests/output/sdk-e2e-server.log"));
    }
    fs.rmSync(folder, { recursive: true, force: true });
  };
  return { url: url.replace(/\/$/, ""), token, stop };
}

async function run(command, args, cwd, env) {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: "inherit" });
  const [code] = await once(child, "exit");
  return code === 0;
}

const { NIMBUS_ENDPOINT, NIMBUS_TOKEN } = process.env;
const server = NIMBUS_ENDPOINT && NIMBUS_TOKEN ? { url: NIMBUS_ENDPOINT, token: NIMBUS_TOKEN, stop: async () => undefined } : await start();
const env = { NIMBUS_ENDPOINT: server.url, NIMBUS_TOKEN: server.token, NIMBUS_TEST_IMAGE: process.env.NIMBUS_TEST_IMAGE ?? "nimbus.test/busybox:1" };
const filters = process.argv.slice(2);
const python = process.env.NIMBUS_E2E_PYTHON ?? path.join(root, "target/venv/bin/python");
const passed = [await run("npx", ["vitest", "run", ...(filters.length === 0 ? ["test/e2e"] : filters)], sdk, env)];
if (filters.length === 0) passed.push(await run(python, ["-m", "pytest", "-q", "-k", "real_server"], path.join(root, "clients/python"), env));
await server.stop(passed.includes(false));
process.exitCode = passed.includes(false) ? 1 : 0;
