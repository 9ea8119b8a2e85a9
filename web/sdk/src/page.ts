import { fromBase64 } from "./bytes.js";
import { NimbusApiError, NimbusTransportError } from "./errors.js";

/** Something that happened in the page. */
export interface NimbusPageEvent {
  readonly event: "navigated" | "console" | "dialog" | "download";
  readonly [more: string]: unknown;
}

interface Reply {
  readonly id?: number;
  readonly result?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
  readonly event?: string;
}

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

const PROTOCOL = "nimbus.session.v1";

/** A browser page of a desktop sandbox, driven through the session's `page` channel. */
export class NimbusPage implements AsyncDisposable {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(event: NimbusPageEvent) => void>();
  #last = 0;
  #gone: Error | undefined;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener("message", (event: MessageEvent<unknown>) => {
      if (typeof event.data === "string") this.#take(JSON.parse(event.data) as Reply);
    });
    // Some WebSockets throw what nobody listens to; what it means is said by the close that follows.
    socket.addEventListener("error", () => undefined);
    socket.addEventListener("close", (event) => {
      this.#gone = new NimbusTransportError(`the page channel is closed (${event.code}${event.reason === "" ? "" : `, ${event.reason}`})`);
      for (const waiting of this.#waiting.values()) waiting.reject(this.#gone);
      this.#waiting.clear();
    });
  }

  /** Connects; `url` carries a ticket. */
  static open(url: string, socketClass: typeof WebSocket): Promise<NimbusPage> {
    const socket = new socketClass(url, PROTOCOL);
    const page = new NimbusPage(socket);
    return new Promise((resolve, reject) => {
      socket.addEventListener("open", () => { resolve(page); }, { once: true });
      socket.addEventListener("close", () => { reject(page.#gone ?? new NimbusTransportError("the page channel could not be opened")); }, { once: true });
    });
  }

  /** Loads a page and answers the address it came to. */
  async goto(url: string, options: { readonly waitUntil?: "load" | "domcontentloaded" | "networkidle" } = {}): Promise<string> {
    return (await this.call<{ readonly url: string }>("goto", { url, ...options })).url;
  }

  async reload(): Promise<void> {
    await this.call("reload");
  }

  async back(): Promise<void> {
    await this.call("back");
  }

  async forward(): Promise<void> {
    await this.call("forward");
  }

  /** The HTML of the page. */
  content(): Promise<string> {
    return this.call<string>("content");
  }

  /** The text a reader of the page sees. */
  text(): Promise<string> {
    return this.call<string>("text");
  }

  /** A picture of what is seen, or with `fullPage` of all of it. */
  async screenshot(options: { readonly fullPage?: boolean; readonly format?: "png" | "jpeg" | "webp" } = {}): Promise<Uint8Array> {
    return fromBase64((await this.call<{ readonly data: string }>("screenshot", options)).data);
  }

  async click(selector: string): Promise<void> {
    await this.call("click", { selector });
  }

  async fill(selector: string, value: string): Promise<void> {
    await this.call("fill", { selector, value });
  }

  async press(key: string): Promise<void> {
    await this.call("press", { key });
  }

  evaluate<T = unknown>(expression: string): Promise<T> {
    return this.call<T>("evaluate", { expression });
  }

  async waitFor(what: { readonly selector: string } | { readonly ms: number }): Promise<void> {
    await this.call("waitFor", what);
  }

  /** Any method of the channel. */
  call<T = unknown>(method: string, params: object = {}): Promise<T> {
    if (this.#gone !== undefined) return Promise.reject(this.#gone);
    this.#last += 1;
    const id = this.#last;
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve: (result) => { resolve(result as T); }, reject });
      this.#socket.send(JSON.stringify({ id, method, params }));
    });
  }

  /** Calls `listener` for each event; the answer takes it away again. */
  on(listener: (event: NimbusPageEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Lets go of the page. */
  close(): void {
    this.#socket.close(1000, "client_close");
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  #take(reply: Reply): void {
    if (reply.event !== undefined) {
      for (const listener of this.#listeners) listener(reply as NimbusPageEvent);
      return;
    }
    const waiting = reply.id === undefined ? undefined : this.#waiting.get(reply.id);
    if (waiting === undefined || reply.id === undefined) return;
    this.#waiting.delete(reply.id);
    if (reply.error === undefined) waiting.resolve(reply.result);
    else waiting.reject(new NimbusApiError({ code: reply.error.code, message: reply.error.message }));
  }
}
