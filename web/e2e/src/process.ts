import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { BINARY } from "./paths";

const READY_MS = 60_000;
const running = new Set<ChildProcess>();

// A runner that dies must not leave servers behind.
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** The program, running, with what it said about itself once it was ready. */
export class Program<Facts> {
  private constructor(
    private readonly child: ChildProcess,
    readonly facts: Facts,
  ) {}

  /** Starts it and waits for its ready file. Its output goes to a log in `folder`. */
  static async start<Facts>(name: string, folder: string, args: readonly string[], environment: Readonly<Record<string, string>>): Promise<Program<Facts>> {
    const ready = path.join(folder, `${name}.json`);
    fs.rmSync(ready, { force: true });
    const log = path.join(folder, `${name}.log`);
    const output = fs.openSync(log, "a");
    const child = spawn(BINARY, [...args, "--ready-file", ready], {
      cwd: folder,
      // Settings of whoever runs the tests must not get in.
      env: { PATH: process.env["PATH"], HOME: folder, ...environment },
      stdio: ["ignore", output, output],
    });
    fs.closeSync(output);
    running.add(child);
    child.once("exit", () => running.delete(child));
    let broken: Error | null = null;
    child.once("error", (error) => (broken = error));
    const until = Date.now() + READY_MS;
    for (;;) {
      const text = fs.existsSync(ready) ? fs.readFileSync(ready, "utf8") : "";
      if (text !== "") return new Program<Facts>(child, JSON.parse(text) as Facts);
      if (broken !== null || child.exitCode !== null || Date.now() > until) {
        child.kill("SIGKILL");
        throw new Error(`${name} did not get ready (${broken ?? `exit code ${child.exitCode}`}):\n${fs.readFileSync(log, "utf8")}`);
      }
      await pause(20);
    }
  }

  /** Ends it and waits until it is gone. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, "exit");
    this.child.kill(signal);
    await gone;
  }
}
