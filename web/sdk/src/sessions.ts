import { NimbusApiError, NimbusInputError } from "./errors.js";
import { NimbusFiles } from "./files.js";
import { NimbusList } from "./list.js";
import { NimbusPage } from "./page.js";
import { tenantOf, type Scope } from "./scope.js";
import { channelUrl, NimbusStdio, stdioQuery, type NimbusStdioRequest } from "./stdio.js";
import { path } from "./transport.js";
import type {
  NimbusAbortable,
  NimbusCollection,
  NimbusSessionCloseRequest,
  NimbusSessionCollection,
  NimbusSessionListRequest,
  NimbusSessionOpenRequest,
  NimbusSessionResource,
  NimbusSessionSelector,
  NimbusSessionTicket,
} from "./types.js";

/** The sessions of a tenant: leases on what runs, with channels to talk to it. */
export class NimbusSessions {
  readonly #scope: Scope;

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  async open(input: NimbusSessionOpenRequest): Promise<NimbusSession> {
    const tenantId = tenantOf(this.#scope, input);
    const { target, channels, requestedTtlMs, signal } = input;
    const resource = await this.#scope.transport.json<NimbusSessionResource>({
      method: "POST",
      path: "/api/sessions",
      json: { tenantId, target, channels, requestedTtlMs },
      signal,
      creates: true,
    });
    return new NimbusSession(this, resource);
  }

  async get(input: NimbusSessionSelector): Promise<NimbusSession> {
    const resource = await this.#scope.transport.json<NimbusSessionResource>({
      method: "GET",
      path: this.#path(input),
      query: { tenantId: this.#hint(input) },
      signal: input.signal,
    });
    return new NimbusSession(this, resource);
  }

  /** One page when awaited, every session in a `for await`. */
  list(input: NimbusSessionListRequest = {}): NimbusList<NimbusSession> {
    const { limit, pageToken, state, signal } = input;
    return new NimbusList(pageToken, async (token): Promise<NimbusCollection<NimbusSession>> => {
      const page = await this.#scope.transport.json<NimbusSessionCollection>({
        method: "GET",
        path: "/api/sessions",
        query: { tenantId: tenantOf(this.#scope, input), limit, pageToken: token, state },
        signal,
      });
      return { ...page, items: page.items.map((item) => new NimbusSession(this, item)) };
    });
  }

  /** Ends a session. Closing it twice changes nothing. */
  async close(input: NimbusSessionCloseRequest): Promise<NimbusSession> {
    const resource = await this.#scope.transport.json<NimbusSessionResource>({
      method: "POST",
      path: `${this.#path(input)}/close`,
      query: { tenantId: this.#hint(input) },
      json: { reason: input.reason },
      signal: input.signal,
    });
    return new NimbusSession(this, resource);
  }

  /** Attaches to input and output: over a WebSocket, or over plain HTTP where there is none. */
  async stdio(input: NimbusSessionSelector & NimbusStdioRequest): Promise<NimbusStdio> {
    const query = stdioQuery(input);
    const { signal } = input;
    const session = this.#path(input);
    if (this.#scope.webSocket === undefined) return NimbusStdio.overHttp(this.#scope.transport, `${session}/channels/stdio`, query, signal);
    const url = await channelUrl(this.#scope.transport, session, "stdio", query);
    return NimbusStdio.overSocket(url, this.#scope.webSocket, signal);
  }

  /** The files of the target, through the session's `files` channel. */
  files(input: NimbusSessionSelector): NimbusFiles {
    return new NimbusFiles(this.#scope.transport, `${this.#path(input)}/channels/files`);
  }

  /** An address for a client of the Chrome DevTools Protocol, good for one connection within a minute. */
  cdpUrl(input: NimbusSessionSelector): Promise<string> {
    return channelUrl(this.#scope.transport, this.#path(input), "cdp");
  }

  /** Drives the browser of a desktop sandbox. Needs a WebSocket. */
  async page(input: NimbusSessionSelector): Promise<NimbusPage> {
    const socketClass = this.#scope.webSocket;
    if (socketClass === undefined) throw new NimbusInputError("no WebSocket here: use Node 22 or later, or pass the option `webSocket`");
    return NimbusPage.open(await channelUrl(this.#scope.transport, this.#path(input), "page"), socketClass);
  }

  /** Lets a browser that holds no credential open one channel, once, within a minute. */
  async ticket(input: NimbusSessionSelector): Promise<NimbusSessionTicket> {
    return this.#scope.transport.json({ method: "POST", path: `${this.#path(input)}/tickets`, json: {}, signal: input.signal });
  }

  #path(input: NimbusSessionSelector): string {
    return path`/api/sessions/${input.id}`;
  }

  /** Sessions are found by id alone; naming the tenant spares the server a search. */
  #hint(input: NimbusSessionSelector): string | undefined {
    return input.tenantId ?? this.#scope.tenantId;
  }
}

/**
 * A session as it was when it was read, and what can be done with it.
 * `await using` closes it at the end of the block.
 */
export class NimbusSession implements NimbusSessionResource, AsyncDisposable {
  readonly metadata: NimbusSessionResource["metadata"];
  readonly spec: NimbusSessionResource["spec"];
  readonly status: NimbusSessionResource["status"];
  readonly #all: NimbusSessions;

  /** @internal */
  constructor(all: NimbusSessions, resource: NimbusSessionResource) {
    this.#all = all;
    this.metadata = resource.metadata;
    this.spec = resource.spec;
    this.status = resource.status;
  }

  get id(): string {
    return this.metadata.id;
  }

  get files(): NimbusFiles {
    return this.#all.files(this.#self());
  }

  /** The session as it is now. */
  refresh(options: NimbusAbortable = {}): Promise<NimbusSession> {
    return this.#all.get({ ...options, ...this.#self() });
  }

  stdio(input: NimbusStdioRequest = {}): Promise<NimbusStdio> {
    return this.#all.stdio({ ...input, ...this.#self() });
  }

  cdpUrl(): Promise<string> {
    return this.#all.cdpUrl(this.#self());
  }

  page(): Promise<NimbusPage> {
    return this.#all.page(this.#self());
  }

  ticket(): Promise<NimbusSessionTicket> {
    return this.#all.ticket(this.#self());
  }

  close(options: NimbusAbortable & { readonly reason?: string } = {}): Promise<NimbusSession> {
    return this.#all.close({ ...options, ...this.#self() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.close();
    } catch (error) {
      // The tenant was deleted inside the block.
      if (!(error instanceof NimbusApiError && error.status === 404)) throw error;
    }
  }

  #self(): NimbusSessionSelector {
    return { id: this.metadata.id, tenantId: this.metadata.tenantId };
  }
}
