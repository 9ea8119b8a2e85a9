import { carried, payload, pieces, toBytes, type NimbusBytes } from "./bytes.js";
import { apiError, decodeNimbusErrorEnvelope, NimbusApiError, NimbusError, NimbusTransportError } from "./errors.js";
import { jsonLines, SILENCE_MS } from "./ndjson.js";
import { freshKey, type Transport } from "./transport.js";
import type { NimbusAbortable, NimbusSessionTicket } from "./types.js";

/** What to attach to. Without `argv` it is the main process, and what it wrote last comes first. */
export interface NimbusStdioRequest extends NimbusAbortable {
  /** Runs this for the attachment instead. */
  readonly argv?: readonly string[] | undefined;
  /** Gives it a terminal. */
  readonly terminal?: { readonly cols: number; readonly rows: number } | undefined;
  /** Attaches to the command of this id; with `argv` it is run under this id unless it runs already. */
  readonly commandId?: string | undefined;
  /** Offset in its output to begin at. */
  readonly from?: number | undefined;
}

/** Query of the stdio routes. */
export interface StdioQuery {
  readonly argv: string | undefined;
  readonly tty: number | undefined;
  readonly cols: number | undefined;
  readonly rows: number | undefined;
  readonly command: string | undefined;
  readonly from: number | undefined;
  readonly [name: string]: string | number | undefined;
}

/** What a request says, as the stdio routes want it. */
export function stdioQuery(input: NimbusStdioRequest): StdioQuery {
  const { argv, terminal, commandId, from } = input;
  return {
    argv: argv === undefined ? undefined : JSON.stringify(argv),
    tty: terminal === undefined ? undefined : 1,
    cols: terminal?.cols,
    rows: terminal?.rows,
    // Input finds a process of our own by its id.
    command: commandId ?? (argv === undefined ? undefined : freshKey()),
    from,
  };
}

/** How an attachment ended. */
export interface NimbusStdioEnd {
  /** Exit code of the process, when it ended; null when a signal ended it. */
  readonly exitCode: number | null;
  /** Why the channel closed, when it was not the process: `expired`, `client_close`, `target_stopped`… */
  readonly reason: string | null;
}

/** Bytes to a stream of the process: 0 its input, 3 control. */
const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const CONTROL = 3;
const PROTOCOL = "nimbus.session.v1";
/** The largest payload of a frame. */
const FRAME_BYTES = 32 * 1024;
/** How much may wait to be sent, and how much may wait to be read, before we hold back. */
const HIGH_WATER_BYTES = 1024 * 1024;
const DRAIN_MS = 5;

/** What carries frames: a WebSocket, or the NDJSON form where there is none. */
interface Wire {
  send(bytes: Uint8Array): Promise<void>;
  control(message: Control): Promise<void>;
  close(): void;
}

type Control =
  | { readonly type: "resize"; readonly cols: number; readonly rows: number }
  | { readonly type: "eof" }
  | { readonly type: "signal"; readonly name: string };

type Told =
  | { readonly type: "opened"; readonly targetGeneration?: number }
  | { readonly type: "replay"; readonly bytes: number }
  | { readonly type: "exit"; readonly code: number | null; readonly signal?: string | number | null };

/**
 * Input and output of a process, attached by a session.
 * Read both `stdout` and `stderr`, or only the one you want: what is not read stays in memory.
 */
export class NimbusStdio implements AsyncDisposable {
  readonly stdin: WritableStream<NimbusBytes>;
  readonly stdout: ReadableStream<Uint8Array>;
  readonly stderr: ReadableStream<Uint8Array>;
  /** Resolves when the process or the channel ends; rejects when the connection breaks. */
  readonly ended: Promise<NimbusStdioEnd>;
  readonly #wire: Wire;

  private constructor(outputs: Outputs, wire: Wire) {
    this.#wire = wire;
    this.stdout = outputs.stdout.readable;
    this.stderr = outputs.stderr.readable;
    this.ended = outputs.ended;
    this.stdin = new WritableStream<NimbusBytes>({
      write: async (data) => {
        for (const piece of pieces(toBytes(data), FRAME_BYTES)) await wire.send(piece);
      },
      close: () => endInput(wire),
      abort: () => endInput(wire),
    });
  }

  /** Tells the terminal its size. */
  resize(cols: number, rows: number): Promise<void> {
    return this.#wire.control({ type: "resize", cols, rows });
  }

  /** Sends the process a signal: `"INT"`, `"TERM"`… */
  signal(name: string): Promise<void> {
    return this.#wire.control({ type: "signal", name });
  }

  /** Detaches. A main process runs on. */
  close(): void {
    this.#wire.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  /** Attaches over a WebSocket; `url` carries a ticket. */
  static overSocket(url: string, socketClass: typeof WebSocket, signal?: AbortSignal): Promise<NimbusStdio> {
    const outputs = new Outputs();
    const socket = new socketClass(url, PROTOCOL);
    socket.binaryType = "arraybuffer";
    const wire = new SocketWire(socket);
    const stdio = new NimbusStdio(outputs, wire);
    signal?.addEventListener("abort", () => { wire.close(); }, { once: true });
    return new Promise((resolve, reject) => {
      socket.addEventListener("message", (event: MessageEvent<unknown>) => {
        if (!(event.data instanceof ArrayBuffer)) return;
        const frame = new Uint8Array(event.data);
        const body = frame.subarray(1);
        switch (frame[0]) {
          case STDOUT:
            outputs.stdout.push(body);
            break;
          case STDERR:
            outputs.stderr.push(body);
            break;
          case CONTROL: {
            const told = JSON.parse(new TextDecoder().decode(body)) as Told;
            if (told.type === "opened") resolve(stdio);
            if (told.type === "exit") outputs.end({ exitCode: told.signal === undefined || told.signal === null ? told.code : null, reason: null });
            break;
          }
          default:
            break;
        }
      });
      // Some WebSockets throw what nobody listens to; what it means is said by the close that follows.
      socket.addEventListener("error", () => undefined);
      socket.addEventListener("close", (event) => {
        // 1000 is our own goodbye, 4000 and up are the server's reasons.
        if (wire.left || event.code === 1000 || event.code >= 4000) outputs.end({ exitCode: null, reason: event.reason === "" ? `close ${event.code}` : event.reason });
        else outputs.fail(new NimbusTransportError(`the connection of the stdio channel broke (${event.code}${event.reason === "" ? "" : `, ${event.reason}`})`));
        reject(
          event.code >= 4000 || event.code === 1008
            ? new NimbusApiError({ code: "client.closed", message: `the stdio channel was closed: ${event.reason}`, detail: { reason: event.reason, closeCode: event.code } })
            : new NimbusTransportError(`the stdio channel could not be opened (${event.code}); a server that refuses a WebSocket cannot say why`),
        );
      });
    });
  }

  /** @internal Attaches over plain HTTP: a stream of lines one way, requests the other way. */
  static async overHttp(transport: Transport, channel: string, query: StdioQuery, signal?: AbortSignal): Promise<NimbusStdio> {
    const outputs = new Outputs();
    const abort = new AbortController();
    const both = signal === undefined ? abort.signal : AbortSignal.any([signal, abort.signal]);
    const response = await transport.open({
      method: "GET",
      path: `${channel}/stream`,
      query,
      headers: { accept: "application/x-ndjson" },
      signal: both,
    });
    const frames = jsonLines<LineFrame>(response, SILENCE_MS);
    const first = await frames.next();
    if (first.done === true) throw new NimbusTransportError("the stdio channel ended before it was open");
    if (first.value.kind === "closed") {
      throw new NimbusApiError({ code: "client.closed", message: `the stdio channel was closed: ${first.value.reason}`, detail: { reason: first.value.reason } });
    }
    // Once it has ended there is nothing left to send to.
    const wire = new HttpWire(transport, channel, query, abort);
    void readLines(first.value, frames, outputs, both).finally(() => { wire.end(); });
    return new NimbusStdio(outputs, wire);
  }
}

type LineFrame =
  | { readonly kind: "opened" }
  | { readonly kind: "stdout" | "stderr"; readonly data: string; readonly encoding?: string }
  | { readonly kind: "exit"; readonly code: number | null }
  | { readonly kind: "error"; readonly error: unknown }
  | { readonly kind: "closed"; readonly reason: string };

async function readLines(first: LineFrame, frames: AsyncGenerator<LineFrame, void, undefined>, outputs: Outputs, signal: AbortSignal): Promise<void> {
  try {
    let exitCode: number | null = null;
    let exited = false;
    for (let frame: LineFrame | undefined = first; frame !== undefined; ) {
      switch (frame.kind) {
        case "opened":
          break;
        case "stdout":
        case "stderr":
          outputs[frame.kind].push(payload(frame));
          await outputs[frame.kind].room();
          break;
        case "exit":
          exited = true;
          exitCode = frame.code;
          break;
        case "error":
          throw apiError(decodeNimbusErrorEnvelope(frame, { status: 0 }));
        case "closed":
          outputs.end({ exitCode, reason: exited ? null : frame.reason });
          return;
      }
      const next: IteratorResult<LineFrame, void> = await frames.next();
      frame = next.done === true ? undefined : next.value;
    }
    if (exited) outputs.end({ exitCode, reason: null });
    else outputs.fail(new NimbusTransportError("the connection of the stdio channel broke"));
  } catch (error) {
    if (signal.aborted) outputs.end({ exitCode: null, reason: "detached" });
    else outputs.fail(error);
  }
}

/** Both output streams, and how they end: together. */
class Outputs {
  readonly stdout = new Output();
  readonly stderr = new Output();
  readonly ended: Promise<NimbusStdioEnd>;
  #resolve: (end: NimbusStdioEnd) => void = () => undefined;
  #reject: (reason: unknown) => void = () => undefined;

  constructor() {
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Who reads the streams hears of a failure there.
    this.ended.catch(() => undefined);
  }

  end(end: NimbusStdioEnd): void {
    this.stdout.close();
    this.stderr.close();
    this.#resolve(end);
  }

  fail(error: unknown): void {
    this.stdout.fail(error);
    this.stderr.fail(error);
    this.#reject(error);
  }
}

/** One output stream, fed from outside. */
class Output {
  readonly readable: ReadableStream<Uint8Array>;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #wanted: (() => void) | undefined;

  constructor() {
    this.readable = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => {
          this.#wanted?.();
        },
        cancel: () => {
          this.#done();
        },
      },
      new ByteLengthQueuingStrategy({ highWaterMark: HIGH_WATER_BYTES }),
    );
  }

  push(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#controller?.enqueue(bytes);
  }

  /** Resolves when a reader has caught up. One that nobody reads must not hold up the other. */
  async room(): Promise<void> {
    const controller = this.#controller;
    if (controller === undefined || !this.readable.locked || (controller.desiredSize ?? 1) > 0) return;
    await new Promise<void>((resolve) => {
      this.#wanted = resolve;
    });
  }

  close(): void {
    this.#controller?.close();
    this.#done();
  }

  fail(error: unknown): void {
    this.#controller?.error(error);
    this.#done();
  }

  #done(): void {
    this.#controller = undefined;
    this.#wanted?.();
  }
}

class SocketWire implements Wire {
  left = false;
  readonly #socket: WebSocket;

  constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  async send(bytes: Uint8Array): Promise<void> {
    await this.#frame(STDIN, bytes);
  }

  async control(message: Control): Promise<void> {
    await this.#frame(CONTROL, toBytes(JSON.stringify(message)));
  }

  close(): void {
    this.left = true;
    this.#socket.close(1000, "client_close");
  }

  async #frame(stream: number, bytes: Uint8Array): Promise<void> {
    const frame = new Uint8Array(bytes.length + 1);
    frame[0] = stream;
    frame.set(bytes, 1);
    // WebSockets tell nobody when their buffer empties, so it has to be looked at.
    while (this.#socket.readyState === 1 && this.#socket.bufferedAmount > HIGH_WATER_BYTES) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_MS));
    }
    if (this.#socket.readyState !== 1) throw closed();
    this.#socket.send(frame);
  }
}

class HttpWire implements Wire {
  readonly #transport: Transport;
  readonly #channel: string;
  readonly #command: string | undefined;
  /** Bytes sent to a process of our own, which makes a repeat harmless; others may write to the rest, too. */
  #sent: number | undefined;
  readonly #abort: AbortController;
  #ended = false;
  /** Requests overtake each other; bytes must not. */
  #queue: Promise<void> = Promise.resolve();

  constructor(transport: Transport, channel: string, query: StdioQuery, abort: AbortController) {
    this.#transport = transport;
    this.#channel = channel;
    this.#command = query.command;
    this.#sent = query.argv !== undefined && query.from === undefined ? 0 : undefined;
    this.#abort = abort;
  }

  send(bytes: Uint8Array): Promise<void> {
    const offset = this.#sent;
    if (offset !== undefined) this.#sent = offset + bytes.length;
    return this.#post({ offset, ...carried(bytes) }, offset !== undefined);
  }

  control(message: Control): Promise<void> {
    switch (message.type) {
      case "resize":
        return this.#post({ data: "", resize: { cols: message.cols, rows: message.rows } });
      case "eof":
        return this.#post({ offset: this.#sent, data: "", eof: true });
      case "signal":
        return this.#post({ data: "", signal: message.name });
    }
  }

  close(): void {
    this.#ended = true;
    this.#abort.abort();
  }

  /** Nothing more can be sent; what is on its way may arrive. */
  end(): void {
    this.#ended = true;
  }

  #post(json: unknown, repeatable = false): Promise<void> {
    const sent = this.#queue.then(async () => {
      if (this.#ended) throw closed();
      await this.#transport.done({ method: "POST", path: `${this.#channel}/input`, query: { command: this.#command }, json, repeatable, signal: this.#abort.signal });
    });
    this.#queue = sent.catch(() => undefined);
    return sent;
  }
}

/** Ends the input. A process that has ended has none, and that is just as well. */
async function endInput(wire: Wire): Promise<void> {
  try {
    await wire.control({ type: "eof" });
  } catch (error) {
    const late = error instanceof NimbusError && (error.code === CLOSED || error.status === 404 || error.status === 409);
    if (!late) throw error;
  }
}

const CLOSED = "client.invalid_state";

function closed(): NimbusError {
  return new NimbusError({ code: CLOSED, message: "the stdio channel is closed" });
}

/** Where a channel can be opened, once, without a credential. */
export async function channelUrl(
  transport: Transport,
  session: string,
  channel: string,
  query: Readonly<Record<string, string | number | undefined>> = {},
): Promise<string> {
  const { ticket } = await transport.json<NimbusSessionTicket>({ method: "POST", path: `${session}/tickets`, json: {} });
  return transport.socketUrl(`${session}/channels/${channel}`, { ...query, ticket });
}
