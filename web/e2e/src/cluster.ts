import { Gate } from "./gate";
import { Program } from "./process";

const TOKEN_ID = "root@pam!test";
const TOKEN_SECRET = "6b1e0a5c-browser";

interface Guest {
  vmid: number;
  name: string;
  node: string;
  foreign: boolean;
}

/** The simulated cluster, a process of its own, and the gate before it. */
export class Cluster {
  private constructor(
    private readonly program: Program<{ url: string }>,
    readonly gate: Gate,
  ) {}

  static async start(folder: string, latencyScale: number): Promise<Cluster> {
    const program = await Program.start<{ url: string }>(
      "pve-sim",
      folder,
      ["pve-sim", "--listen", "127.0.0.1:0", "--token-id", TOKEN_ID, "--latency-scale", String(latencyScale)],
      { PVE_SIM_TOKEN_SECRET: TOKEN_SECRET },
    );
    return new Cluster(program, await Gate.start(program.facts.url));
  }

  /** How a server is told about it. */
  get settings(): Record<string, string> {
    return { PROXMOX_HOST: this.gate.url, PROXMOX_TOKEN_ID: TOKEN_ID, PROXMOX_TOKEN_SECRET: TOKEN_SECRET };
  }

  /** Orders a fault; `{ mode: "fail", message: "…" }` for instance. */
  async order(path: string, fault: Record<string, unknown>): Promise<void> {
    await this.control("POST", "faults", { path, ...fault });
  }

  /** Forgets what was ordered. */
  async mend(): Promise<void> {
    await this.control("DELETE", "faults");
  }

  /** Switches a node off or on. */
  async node(name: string, online: boolean): Promise<void> {
    await this.control("POST", `nodes/${name}`, { online });
  }

  /** The guest of this name. */
  async guest(name: string): Promise<Guest | undefined> {
    const state = (await this.control("GET", "state")) as { vms: Guest[] };
    return state.vms.find((guest) => guest.name === name);
  }

  /** A machine of somebody else, at an address. */
  async stranger(guest: Record<string, unknown>): Promise<void> {
    await this.control("POST", "vms", guest);
  }

  /** Does something to a guest behind the server's back, as an operator at the cluster's own pages would. */
  async power(guest: Guest, verb: "start" | "stop"): Promise<void> {
    const answer = await fetch(`${this.program.facts.url}/api2/json/nodes/${guest.node}/qemu/${guest.vmid}/status/${verb}`, {
      method: "POST",
      headers: { authorization: `PVEAPIToken=${TOKEN_ID}=${TOKEN_SECRET}` },
    });
    if (!answer.ok) throw new Error(`the cluster answered ${answer.status}: ${await answer.text()}`);
  }

  async stop(): Promise<void> {
    await this.gate.stop();
    await this.program.stop();
  }

  private async control(method: string, path: string, body?: unknown): Promise<unknown> {
    const answer = await fetch(`${this.program.facts.url}/sim/${path}`, {
      method,
      headers: { "x-sim-token": TOKEN_SECRET, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`the simulator answered ${answer.status} to ${method} ${path}: ${text}`);
    return text === "" ? null : JSON.parse(text);
  }
}
