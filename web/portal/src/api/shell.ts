import { address, ApiError } from "./client";
import { work } from "./workloads";

/** Where a terminal stands, for the line above it. */
export type ShellState =
  | { kind: "opening"; step: "session" | "attach" }
  | { kind: "live" }
  | { kind: "waiting"; at: number }
  | { kind: "ended"; tone: "idle" | "bad"; what: string };

export interface ShellOptions {
  /** Gives the session to attach to; asked again with the last one when that is no longer open. */
  session: (over: string | null) => Promise<string>;
  /** A program to start for this attachment; without it the main process is attached. */
  argv: readonly string[] | null;
  onOutput: (bytes: Uint8Array) => void;
  /** The connection is there again, after it was lost; what was written last follows once more. */
  onReturn: () => void;
}

const PROTOCOL = "nimbus.session.v1";
const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const CONTROL = 3;
const MAX_FRAME = 32 * 1024 - 1;
const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 15_000;
const MOST_ATTEMPTS = 8;

function frame(stream: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(payload.length + 1);
  bytes[0] = stream;
  bytes.set(payload, 1);
  return bytes;
}

/** How the server ends an attachment. */
function farewell(code: number, reason: string): { what: string; tone: "idle" | "bad" } | null {
  switch (code) {
    case 4001:
      return { what: "The session expired.", tone: "idle" };
    case 4002:
      return { what: reason === "" || reason === "client_close" ? "The session was closed." : `The session was closed: ${reason}.`, tone: "idle" };
    case 4003:
      return { what: reason === "target_stopped" || reason === "" ? "The sandbox was stopped." : `The sandbox is gone: ${reason.replaceAll("_", " ")}.`, tone: "idle" };
    case 4009:
      return { what: "Something else is attached now.", tone: "idle" };
    case 1000:
      return { what: "The connection was closed.", tone: "idle" };
    case 1008:
      return { what: reason === "" ? "The server refused the connection." : `The server refused the connection: ${reason}.`, tone: "bad" };
    default:
      return null;
  }
}

/** One terminal's connection: opens the session, attaches, comes back when the network fails. */
export class Shell {
  private readonly listeners = new Set<() => void>();
  private readonly text = new TextEncoder();
  private state: ShellState = { kind: "opening", step: "session" };
  private socket: WebSocket | null = null;
  private session: string | null = null;
  /** The last session, once it is over. */
  private over: string | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private size: { cols: number; rows: number } | null = null;
  private exit: number | null = null;
  private attempts = 0;
  private wasLive = false;
  private stopped = true;
  private turn = 0;
  /** Names what was started for this terminal, so that a lost connection finds it again. */
  private command = "";

  constructor(private readonly options: ShellOptions) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };
  readonly read = (): ShellState => this.state;

  start(): void {
    this.stopped = false;
    this.attempts = 0;
    this.wasLive = false;
    this.command = `terminal-${Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    void this.connect();
  }

  /** Lets go. What was started for this attachment ends with it. */
  stop(): void {
    this.stopped = true;
    this.turn += 1;
    if (this.timer !== null) clearTimeout(this.timer);
    this.socket?.close(1000);
    this.socket = null;
  }

  send(text: string): void {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const bytes = this.text.encode(text);
    for (let at = 0; at < bytes.length; at += MAX_FRAME) this.socket.send(frame(STDIN, bytes.subarray(at, at + MAX_FRAME)));
  }

  resize(cols: number, rows: number): void {
    if (this.size?.cols === cols && this.size.rows === rows) return;
    this.size = { cols, rows };
    this.tellSize();
  }

  private tellSize(): void {
    if (this.size === null || this.socket?.readyState !== WebSocket.OPEN) return;
    this.socket.send(frame(CONTROL, this.text.encode(JSON.stringify({ type: "resize", ...this.size }))));
  }

  private set(next: ShellState): void {
    this.state = next;
    for (const listener of this.listeners) listener();
  }

  private async connect(): Promise<void> {
    const turn = (this.turn += 1);
    const isOld = () => this.stopped || turn !== this.turn;
    this.exit = null;
    let ticket: string | undefined;
    try {
      if (this.session === null) {
        this.set({ kind: "opening", step: "session" });
        const session = await this.options.session(this.over);
        if (isOld()) return;
        this.session = session;
      }
      this.set({ kind: "opening", step: "attach" });
      ticket = await this.ticket(this.session);
    } catch (error) {
      if (isOld()) return;
      this.refused(error);
      return;
    }
    if (isOld()) return;
    const { argv } = this.options;
    const path = address(`/api/sessions/${encodeURIComponent(this.session)}/channels/stdio`, {
      // Its size is told afterwards: the same id must always ask for the same.
      ...(argv === null ? {} : { argv: JSON.stringify(argv), tty: 1, command: this.command }),
      ticket,
    });
    const socket = new WebSocket(new URL(path, window.location.origin.replace(/^http/, "ws")), PROTOCOL);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      if (!isOld()) this.tellSize();
    };
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (!isOld() && event.data instanceof ArrayBuffer) this.receive(new Uint8Array(event.data));
    };
    socket.onclose = (event) => {
      if (!isOld()) this.closed(event.code, event.reason);
    };
  }

  /** A credential for one connection. A server without tickets takes the browser's own cookie. */
  private async ticket(session: string): Promise<string | undefined> {
    try {
      return (await work.ticket(session)).ticket;
    } catch (error) {
      if (error instanceof ApiError && error.fault?.code === "service.route_not_found") return undefined;
      throw error;
    }
  }

  private receive(bytes: Uint8Array): void {
    const payload = bytes.subarray(1);
    const stream = bytes[0];
    if (stream === CONTROL) this.control(payload);
    else if (stream === STDOUT || stream === STDERR) {
      this.live();
      this.options.onOutput(payload);
    }
  }

  private control(payload: Uint8Array): void {
    let message: unknown;
    try {
      message = JSON.parse(new TextDecoder().decode(payload));
    } catch {
      return;
    }
    if (typeof message !== "object" || message === null) return;
    const type: unknown = Reflect.get(message, "type");
    if (type === "opened") this.live();
    if (type === "exit") {
      const code: unknown = Reflect.get(message, "code");
      this.exit = typeof code === "number" ? code : -1;
      this.ended(this.exit);
    }
  }

  private live(): void {
    if (this.state.kind === "live") return;
    if (this.wasLive) this.options.onReturn();
    this.wasLive = true;
    this.attempts = 0;
    this.set({ kind: "live" });
    this.tellSize();
  }

  private ended(code: number): void {
    this.set({ kind: "ended", tone: "idle", what: code < 0 ? "The program ended." : `The program ended with code ${code}.` });
  }

  private closed(code: number, reason: string): void {
    this.socket = null;
    if (this.exit !== null) return;
    const said = farewell(code, reason);
    if (said !== null) {
      // What closed is not coming back by itself; another start opens another session.
      this.drop();
      this.set({ kind: "ended", ...said });
      return;
    }
    this.later();
  }

  private refused(error: unknown): void {
    const passing = error instanceof ApiError && (error.status === 0 || error.status >= 502);
    if (passing) {
      this.later();
      return;
    }
    this.drop();
    this.set({ kind: "ended", tone: "bad", what: error instanceof Error ? error.message : "The session could not be opened." });
  }

  private drop(): void {
    this.over = this.session ?? this.over;
    this.session = null;
  }

  private later(): void {
    this.attempts += 1;
    if (this.attempts > MOST_ATTEMPTS) {
      this.set({ kind: "ended", tone: "bad", what: "The connection was lost." });
      return;
    }
    const wait = Math.min(FIRST_WAIT_MS * 2 ** (this.attempts - 1), MAX_WAIT_MS);
    this.set({ kind: "waiting", at: Date.now() + wait });
    this.timer = setTimeout(() => void this.connect(), wait);
  }
}
