import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

export const ROOT = path.resolve(import.meta.dirname, "../../../..");
/** The program under test. */
export const BINARY = path.resolve(process.env.NIMBUS_BIN ?? path.join(ROOT, "target/debug/nimbus"));
const READY_MS = 60_000;

/** A server of our own; everything of it is in one folder. */
export class Server {
  #folder = fs.mkdtempSync(path.join(os.tmpdir(), "nimbus-sdk-e2e-"));
  #child;
  #port = "0";
  url = "";
  token = "";

  static async start() {
    const server = new Server();
    await server.boot();
    server.token = execFileSync(BINARY, ["auth", "token"], { env: server.#env(), encoding: "utf8" }).trim();
    return server;
  }

  /** Starts it, under the same address as before. */
  async boot() {
    const ready = path.join(this.#folder, "ready.json");
    fs.rmSync(ready, { force: true });
    const output = fs.openSync(this.log, "a");
    const args = ["start", "--host", "127.0.0.1", "--port", this.#port, "--ready-file", ready];
    const child = spawn(BINARY, args, { cwd: this.#folder, env: this.#env(), stdio: ["ignore", output, output] });
    this.#child = child;
    fs.closeSync(output);
    process.once("exit", () => child.kill("SIGKILL"));
    const until = Date.now() + READY_MS;
    while (!fs.existsSync(ready) || fs.readFileSync(ready, "utf8") === "") {
      if (child.exitCode !== null || Date.now() > until) throw new Error(`the server did not get ready:\n${fs.readFileSync(this.log, "utf8")}`);
      await pause(50);
    }
    this.url = JSON.parse(fs.readFileSync(ready, "utf8")).url.replace(/\/$/, "");
    this.#port = new URL(this.url).port;
  }

  get log() {
    return path.join(this.#folder, "server.log");
  }

  /** Takes it away; with SIGKILL without a word. */
  async halt(signal = "SIGTERM") {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, "exit");
    this.#child.kill(signal);
    await gone;
  }

  /** Takes it away with everything it kept. */
  async remove() {
    await this.halt();
    this.#sweep();
    fs.rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Sandboxes outlive their server on purpose; what is left of this one's ends here. */
  #sweep() {
    const file = path.join(this.#folder, "data/sandboxes/installation");
    if (!fs.existsSync(file)) return;
    const label = `label=io.nimbus.installation=${fs.readFileSync(file, "utf8").trim()}`;
    const engine = process.env.DOCKER_HOST?.includes("podman") ? "podman" : "docker";
    const ids = execFileSync(engine, ["ps", "--all", "--quiet", "--filter", label], { encoding: "utf8" }).split("\n").filter((id) => id !== "");
    if (ids.length > 0) execFileSync(engine, ["rm", "--force", "--volumes", ...ids], { stdio: "ignore" });
  }

  #env() {
    const kept = Object.entries(process.env).filter(([name]) => name === "PATH" || name === "DOCKER_HOST" || /^NIMBUS_(SANDBOX|IMAGE|GUEST|LOG|NATS)/.test(name));
    const folder = this.#folder;
    // Requests come as fast as tests can send them.
    return { ...Object.fromEntries(kept), HOME: folder, XDG_RUNTIME_DIR: folder, NIMBUS_DATA_DIR: path.join(folder, "data"), RATE_LIMIT_ADDRESS_PER_SECOND: "0", RATE_LIMIT_USER_PER_SECOND: "0" };
  }
}
