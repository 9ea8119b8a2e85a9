import { carried, payload, toBytes, type NimbusBytes } from "./bytes.js";
import { apiError, decodeNimbusErrorEnvelope, NimbusApiError, NimbusError, NimbusOutOfRetentionError, NimbusTransportError } from "./errors.js";
import { jsonLines, SILENCE_MS } from "./ndjson.js";
import { backoff, freshKey, isTransient, pause, type Transport } from "./transport.js";
import type { NimbusAbortable } from "./types.js";

/** A command to run in a sandbox. */
export interface NimbusExecRequest extends NimbusAbortable {
  readonly argv: readonly string[];
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The command is killed after this long. */
  readonly timeoutMs?: number | undefined;
  /** What it reads; then its input ends. `{ open: true }` keeps it open for `write`. */
  readonly stdin?: string | { readonly open: true } | undefined;
  /** Chosen by the SDK unless given. Running an id again attaches to the command that has it. */
  readonly commandId?: string | undefined;
  /** Gives it a terminal of this size. */
  readonly terminal?: { readonly cols: number; readonly rows: number } | undefined;
  /** How much of each stream an awaited result holds; default 1 MiB. More sets `truncated`. */
  readonly maxOutputBytes?: number | undefined;
}

/** Where to begin reading a command that runs, or ran. */
export interface NimbusAttachRequest extends NimbusAbortable {
  readonly commandId: string;
  /** Offset in its output, both streams counted together; default 0. */
  readonly from?: number | undefined;
  readonly maxOutputBytes?: number | undefined;
}

/** How a command ended. */
export interface NimbusExit {
  readonly exitCode: number | null;
  readonly signal?: string;
  readonly timedOut?: boolean;
}

/** What a command wrote, and how it ended. */
export interface NimbusExecResult extends NimbusExit {
  readonly commandId: string;
  readonly stdout: string;
  readonly stderr: string;
  /** There was more output than `maxOutputBytes`. */
  readonly truncated: boolean;
}

/** What a command does, as it happens. */
export type NimbusExecEvent =
  | { readonly kind: "opened"; readonly commandId: string; readonly offset: number }
  | { readonly kind: "stdout" | "stderr"; readonly offset: number; readonly data: Uint8Array; readonly text: string }
  | ({ readonly kind: "exit" } & NimbusExit);

/** A command of a sandbox, as `commands` lists it. */
export interface NimbusCommandInfo {
  readonly commandId: string;
  readonly [more: string]: unknown;
}

type Frame =
  | { readonly kind: "opened"; readonly commandId?: string; readonly offset?: number }
  | { readonly kind: "stdout" | "stderr"; readonly offset: number; readonly data: string; readonly encoding?: string }
  | { readonly kind: "exit"; readonly code: number | null; readonly signal?: string; readonly timedOut?: boolean }
  | { readonly kind: "error"; readonly error: unknown }
  | { readonly kind: "closed"; readonly reason: string };

const MAX_OUTPUT_BYTES = 1024 * 1024;
/** How long to keep trying to come back to a command without getting anywhere. */
const PATIENCE_MS = 30_000;
/** A connection that lived this long was a good one, whether or not there was output. */
const SOUND_MS = 1_000;

/**
 * A running command. `await` it for its collected output, or read events with `for await`: one of the two, once.
 *
 * When the connection breaks, it comes back and goes on at the byte where it was: nothing is lost and nothing comes
 * twice. The command itself does not notice.
 */
export class NimbusCommand implements Promise<NimbusExecResult>, AsyncIterable<NimbusExecEvent>, AsyncDisposable {
  readonly [Symbol.toStringTag] = "NimbusCommand";
  readonly commandId: string;
  readonly #transport: Transport;
  readonly #sandbox: string;
  readonly #request: NimbusExecRequest | undefined;
  readonly #maxOutputBytes: number;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  readonly #events: AsyncGenerator<NimbusExecEvent, undefined, undefined>;
  readonly #first: Promise<IteratorResult<NimbusExecEvent, undefined>>;
  #read = false;
  #ended = false;
  #written = 0;
  #result: Promise<NimbusExecResult> | undefined;

  /** @internal `sandbox` is the path of the sandbox. */
  constructor(transport: Transport, sandbox: string, input: NimbusExecRequest | NimbusAttachRequest) {
    this.#transport = transport;
    this.#sandbox = sandbox;
    this.#request = "argv" in input ? input : undefined;
    this.#maxOutputBytes = input.maxOutputBytes ?? MAX_OUTPUT_BYTES;
    this.commandId = input.commandId ?? freshKey();
    this.#signal = input.signal === undefined ? this.#abort.signal : AbortSignal.any([input.signal, this.#abort.signal]);
    this.#events = this.#follow("from" in input ? (input.from ?? 0) : 0);
    // The command starts now, also when nobody reads yet; whoever reads gets the error.
    this.#first = this.#events.next();
    this.#first.catch(() => undefined);
  }

  /** Resolves when the command has begun. */
  async opened(): Promise<void> {
    await this.#first;
  }

  /** Sends something to its input, which must be open. */
  async write(data: NimbusBytes): Promise<void> {
    await this.#input(toBytes(data), false);
  }

  /** Ends its input. */
  async end(data: NimbusBytes = ""): Promise<void> {
    await this.#input(toBytes(data), true);
  }

  /** Sends it a signal: `"INT"`, `"TERM"`, `"KILL"`… */
  async signal(name: string): Promise<void> {
    await this.opened();
    await this.#transport.done({ method: "POST", path: `${this.#path()}/signal`, json: { signal: name } });
  }

  /** Stops reading; the command runs on and can be attached to. */
  detach(): void {
    this.#abort.abort();
  }

  /** Kills the command unless it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (!this.#ended) await this.signal("KILL");
    } catch (error) {
      // It ended in the meantime, or never began.
      if (!(error instanceof NimbusApiError && (error.status === 404 || error.status === 409))) throw error;
    } finally {
      this.detach();
    }
  }

  then<A = NimbusExecResult, B = never>(
    done?: ((result: NimbusExecResult) => A | PromiseLike<A>) | null,
    failed?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#collected().then(done, failed);
  }

  catch<B = never>(failed?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<NimbusExecResult | B> {
    return this.#collected().catch(failed);
  }

  finally(done?: (() => void) | null): Promise<NimbusExecResult> {
    return this.#collected().finally(done);
  }

  #collected(): Promise<NimbusExecResult> {
    this.#result ??= this.#collect();
    return this.#result;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<NimbusExecEvent, undefined, undefined> {
    if (this.#read) throw new NimbusError({ code: "client.invalid_state", message: `the output of command ${this.commandId} is already being read` });
    this.#read = true;
    try {
      const first = await this.#first;
      if (first.done === true) return undefined;
      yield first.value;
      yield* this.#events;
      return undefined;
    } finally {
      await this.#events.return(undefined);
    }
  }

  async #collect(): Promise<NimbusExecResult> {
    const streams = { stdout: new Collected(this.#maxOutputBytes), stderr: new Collected(this.#maxOutputBytes) };
    let exit: NimbusExit = { exitCode: null };
    for await (const event of this) {
      switch (event.kind) {
        case "opened":
          break;
        case "stdout":
        case "stderr":
          streams[event.kind].add(event.data);
          break;
        case "exit": {
          const { exitCode, signal, timedOut } = event;
          exit = { exitCode, ...(signal === undefined ? {} : { signal }), ...(timedOut === undefined ? {} : { timedOut }) };
          break;
        }
      }
    }
    const { stdout, stderr } = streams;
    return { commandId: this.commandId, ...exit, stdout: stdout.text(), stderr: stderr.text(), truncated: stdout.cut || stderr.cut };
  }

  /** Reads the output from `next` on, over as many connections as it takes. */
  async *#follow(from: number): AsyncGenerator<NimbusExecEvent, undefined, undefined> {
    const texts = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    let next = from;
    let begun = this.#request === undefined;
    let told = false;
    let tries = 0;
    let heard = performance.now();
    try {
      for (;;) {
        let since = Infinity;
        try {
          const response = begun ? await this.#attach(next) : await this.#start();
          begun = true;
          since = performance.now();
          for await (const frame of jsonLines<Frame>(response, SILENCE_MS)) {
            switch (frame.kind) {
              case "opened":
                if (!told) yield { kind: "opened", commandId: this.commandId, offset: next };
                told = true;
                break;
              case "stdout":
              case "stderr": {
                const bytes = payload(frame);
                if (frame.offset > next) throw gap(this.commandId, next, frame.offset);
                // Another connection may have brought the beginning of it.
                const fresh = bytes.subarray(Math.min(bytes.length, next - frame.offset));
                if (fresh.length === 0) break;
                const offset = next;
                next += fresh.length;
                heard = performance.now();
                tries = 0;
                yield { kind: frame.kind, offset, data: fresh, text: texts[frame.kind].decode(fresh, { stream: true }) };
                break;
              }
              case "exit":
                this.#ended = true;
                yield {
                  kind: "exit",
                  exitCode: frame.code,
                  ...(frame.signal === undefined ? {} : { signal: frame.signal }),
                  ...(frame.timedOut === undefined ? {} : { timedOut: frame.timedOut }),
                };
                return undefined;
              case "error":
                throw broken(frame);
              case "closed":
                // Only the stream: the command may go on, and coming back tells whether it does.
                throw new NimbusTransportError(`the server ended the stream of command ${this.commandId}: ${frame.reason}`);
            }
          }
          throw new NimbusTransportError(`the connection to command ${this.commandId} ended before the command did`);
        } catch (error) {
          if (performance.now() - since > SOUND_MS) {
            heard = performance.now();
            tries = 0;
          }
          const left = heard + PATIENCE_MS - performance.now();
          if (this.#signal.aborted || !isTransient(error) || left <= 0) throw error;
          await pause(Math.min(left, error.retryAfterMs ?? backoff(tries)), this.#signal);
          tries += 1;
        }
      }
    } finally {
      this.#abort.abort();
    }
  }

  /** Runs it. The id is ours, so that a request whose answer was lost can be repeated: it runs once. */
  #start(): Promise<Response> {
    const { argv, cwd, env, timeoutMs, stdin, terminal } = this.#request ?? { argv: [] };
    return this.#transport.open({
      method: "POST",
      path: `${this.#sandbox}/exec`,
      json: {
        argv,
        cwd,
        env,
        timeoutMs,
        ...(typeof stdin === "object" ? { stdinOpen: true } : { stdin }),
        commandId: this.commandId,
        terminal,
      },
      headers: { accept: "application/x-ndjson" },
      signal: this.#signal,
    });
  }

  #attach(from: number): Promise<Response> {
    return this.#transport.open({
      method: "GET",
      path: this.#path(),
      query: { from },
      headers: { accept: "application/x-ndjson" },
      signal: this.#signal,
    });
  }

  async #input(bytes: Uint8Array, eof: boolean): Promise<void> {
    await this.opened();
    const offset = this.#written;
    this.#written += bytes.length;
    // The offset makes a repeat harmless.
    await this.#transport.done({
      method: "POST",
      path: `${this.#path()}/input`,
      json: { offset, ...carried(bytes), ...(eof ? { eof } : {}) },
      repeatable: true,
      signal: this.#signal,
    });
  }

  #path(): string {
    return `${this.#sandbox}/commands/${encodeURIComponent(this.commandId)}`;
  }
}

/** Output up to a limit. What comes after is read and dropped, so that the command can go on. */
class Collected {
  cut = false;
  readonly #decoder = new TextDecoder();
  readonly #parts: string[] = [];
  #left: number;

  constructor(limit: number) {
    this.#left = limit;
  }

  add(bytes: Uint8Array): void {
    const kept = bytes.subarray(0, this.#left);
    this.#left -= kept.length;
    if (kept.length < bytes.length) this.cut = true;
    if (kept.length > 0) this.#parts.push(this.#decoder.decode(kept, { stream: true }));
  }

  text(): string {
    return `${this.#parts.join("")}${this.#decoder.decode()}`;
  }
}

/** A failure in mid-stream. What is the server's own trouble passes; what is said of the command does not. */
function broken(frame: { readonly error: unknown }): NimbusError {
  const fields = decodeNimbusErrorEnvelope(frame, { status: 0 });
  return apiError(fields.code.startsWith("service.") && fields.retryable ? { ...fields, status: 503 } : fields);
}

function gap(commandId: string, wanted: number, got: number): NimbusOutOfRetentionError {
  return new NimbusOutOfRetentionError({
    code: "op.out_of_retention",
    message: `the output of command ${commandId} from ${wanted} to ${got} is not kept any more`,
    status: 0,
    requestId: undefined,
    severity: "error",
    retryable: false,
    detail: { minimumSequence: got },
    remediation: undefined,
    retryAfterMs: undefined,
  });
}
