import http from "node:http";
import type { AddressInfo } from "node:net";
import { pipeline } from "node:stream";

/** A call that waits at the gate until it is let through. */
export interface Held {
  /** Settles when the first call got here. */
  readonly reached: Promise<void>;
  /** Lets it, and every later one, through. */
  release(): void;
}

interface Rule {
  method: string;
  path: RegExp;
  reach: () => void;
  open: Promise<void>;
}

/**
 * Stands between the server and the simulated cluster, so that a test can stop the world at a call
 * instead of hoping to look at the right moment.
 */
export class Gate {
  private readonly server: http.Server;
  private readonly agent = new http.Agent({ keepAlive: true });
  private rules: Rule[] = [];
  private closed = false;

  private constructor(target: string) {
    this.server = http.createServer((request, response) => {
      void this.pass(new URL(target), request, response);
    });
  }

  static async start(target: string): Promise<Gate> {
    const gate = new Gate(target);
    await new Promise<void>((listening) => gate.server.listen(0, "127.0.0.1", listening));
    return gate;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Stops calls of `path`, without the prefix of the API, from now on. */
  hold(method: string, path: RegExp): Held {
    let reach = () => {};
    let release = () => {};
    const reached = new Promise<void>((resolve) => (reach = resolve));
    const open = new Promise<void>((resolve) => (release = resolve));
    const rule = { method, path, reach, open };
    this.rules.push(rule);
    return {
      reached,
      release: () => {
        this.rules = this.rules.filter((item) => item !== rule);
        release();
      },
    };
  }

  /** From now on the cluster is away: connections are cut. */
  shut(): void {
    this.closed = true;
    this.server.closeAllConnections();
  }

  /** The cluster is back. */
  open(): void {
    this.closed = false;
  }

  async stop(): Promise<void> {
    this.agent.destroy();
    this.server.closeAllConnections();
    await new Promise((closed) => this.server.close(closed));
  }

  private async pass(target: URL, request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const path = (request.url ?? "/").replace(/^\/api2\/json/, "");
    const rule = this.rules.find((item) => item.method === request.method && item.path.test(path));
    if (rule !== undefined) {
      rule.reach();
      await rule.open;
    }
    if (this.closed) {
      request.destroy();
      return;
    }
    const onward = http.request(
      { agent: this.agent, host: target.hostname, port: target.port, path: request.url, method: request.method, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.statusMessage, answer.headers);
        // Not `pipe`: an answer that breaks off has to break off here as well, or whoever asked waits for the rest.
        pipeline(answer, response, () => {});
      },
    );
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  }
}
