import { toBytes } from "./bytes.js";
import type { Call, Transport } from "./transport.js";
import type { NimbusAbortable } from "./types.js";

/** One thing in a directory. */
export interface NimbusFileEntry {
  readonly name: string;
  readonly path: string;
  readonly type: "file" | "dir" | "symlink" | "other";
  readonly size: number;
  /** Permissions in octal: `"0644"`. */
  readonly mode: string;
  readonly mtime: string;
  /** Changes with the content; for `ifMatch`. */
  readonly etag?: string;
}

interface EntryPage {
  readonly entries: readonly NimbusFileEntry[];
  readonly nextPageToken?: string;
}

/** What a file can be written from. A stream is sent as it comes. */
export type NimbusFileContent = string | Uint8Array | Blob | ReadableStream<Uint8Array>;

export interface NimbusFileWriteOptions extends NimbusAbortable {
  /** Permissions, as `0o644`. */
  readonly mode?: number | undefined;
  /** Make directories that are missing. */
  readonly createParents?: boolean | undefined;
  /** Only if the file still has this `etag`. */
  readonly ifMatch?: string | undefined;
  /** `"*"`: only if there is no such file yet. */
  readonly ifNoneMatch?: string | undefined;
}

/** Part of a file: `length` bytes from `offset` on. */
export interface NimbusFileReadOptions extends NimbusAbortable {
  readonly offset?: number | undefined;
  readonly length?: number | undefined;
}

/** The files of a sandbox. Paths are absolute, as the sandbox sees them. */
export class NimbusFiles {
  readonly #transport: Transport;
  readonly #base: string;

  /** @internal `base` is the path of the file routes. */
  constructor(transport: Transport, base: string) {
    this.#transport = transport;
    this.#base = base;
  }

  /** What is in a directory, page by page as it is read. */
  async *list(path: string, options: NimbusAbortable & { readonly limit?: number | undefined } = {}): AsyncGenerator<NimbusFileEntry, void, undefined> {
    let pageToken: string | undefined;
    do {
      const page: EntryPage = await this.#transport.json({ ...this.#call("GET", "list", options), query: { path, limit: options.limit, pageToken } });
      yield* page.entries;
      pageToken = page.nextPageToken;
    } while (pageToken !== undefined);
  }

  stat(path: string, options: NimbusAbortable = {}): Promise<NimbusFileEntry> {
    return this.#transport.json({ ...this.#call("GET", "stat", options), query: { path } });
  }

  /** The bytes of a file. */
  read(path: string, options: NimbusFileReadOptions = {}): Promise<Uint8Array> {
    return this.#transport.bytes(this.#content(path, options));
  }

  /** The text of a file, read as UTF-8. */
  async readText(path: string, options: NimbusAbortable = {}): Promise<string> {
    return new TextDecoder().decode(await this.read(path, options));
  }

  /** The bytes of a file, as they come. */
  async readStream(path: string, options: NimbusFileReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return streamOf(await this.#transport.open(this.#content(path, options)));
  }

  /** Writes a file whole, or not at all. */
  write(path: string, content: NimbusFileContent, options: NimbusFileWriteOptions = {}): Promise<NimbusFileEntry> {
    const { mode, createParents, ifMatch, ifNoneMatch } = options;
    return this.#transport.json({
      ...this.#call("PUT", "content", options),
      query: { path, mode: mode === undefined ? undefined : `0${mode.toString(8)}`, createParents: createParents === true ? 1 : undefined },
      headers: {
        "content-type": "application/octet-stream",
        ...(ifMatch === undefined ? {} : { "if-match": tag(ifMatch) }),
        ...(ifNoneMatch === undefined ? {} : { "if-none-match": tag(ifNoneMatch) }),
      },
      body: bodyOf(content),
    });
  }

  /** Removes a file, or with `recursive` a directory and what is in it. */
  remove(path: string, options: NimbusAbortable & { readonly recursive?: boolean | undefined } = {}): Promise<void> {
    return this.#transport.done({ ...this.#call("DELETE", "content", options), query: { path, recursive: options.recursive === true ? 1 : undefined } });
  }

  /** With `createParents` also the directories above it, and one that is there already is fine. */
  mkdir(path: string, options: NimbusAbortable & { readonly mode?: number | undefined; readonly createParents?: boolean | undefined } = {}): Promise<void> {
    const { createParents } = options;
    const mode = options.mode === undefined ? undefined : `0${options.mode.toString(8)}`;
    return this.#transport.done({ ...this.#call("POST", "mkdir", options), json: { path, mode, createParents } });
  }

  /** With `replace` also onto something that is there. */
  move(from: string, to: string, options: NimbusAbortable & { readonly replace?: boolean | undefined } = {}): Promise<void> {
    return this.#transport.done({ ...this.#call("POST", "move", options), json: { from, to, replace: options.replace } });
  }

  /** A directory as a tar stream. */
  async archive(path: string, options: NimbusAbortable = {}): Promise<ReadableStream<Uint8Array>> {
    return streamOf(await this.#transport.open({ ...this.#call("GET", "archive", options), query: { path }, headers: { accept: "*/*" } }));
  }

  /** Unpacks a tar stream into a directory. */
  extract(path: string, tar: NimbusFileContent, options: NimbusAbortable = {}): Promise<void> {
    return this.#transport.done({
      ...this.#call("PUT", "archive", options),
      query: { path },
      headers: { "content-type": "application/x-tar" },
      body: bodyOf(tar),
    });
  }

  #content(path: string, options: NimbusFileReadOptions): Call {
    const { offset = 0, length } = options;
    const range = offset === 0 && length === undefined ? undefined : `bytes=${offset}-${length === undefined ? "" : offset + length - 1}`;
    return {
      ...this.#call("GET", "content", options),
      query: { path },
      headers: { accept: "*/*", ...(range === undefined ? {} : { range }) },
    };
  }

  #call(method: Call["method"], route: string, options: NimbusAbortable): Pick<Call, "method" | "path" | "signal"> {
    return { method, path: `${this.#base}/${route}`, signal: options.signal };
  }
}

/** An ETag as headers want it: in quotes. Entries have it without. */
function tag(etag: string): string {
  return etag === "*" || etag.includes('"') ? etag : `"${etag}"`;
}

function bodyOf(content: NimbusFileContent): BodyInit {
  if (typeof content !== "string" && !(content instanceof Uint8Array)) return content;
  // A copy, since a view may be of shared memory, which `fetch` does not take.
  return new Uint8Array(toBytes(content));
}

function streamOf(response: Response): ReadableStream<Uint8Array> {
  return response.body ?? new Blob([]).stream();
}
