import { NimbusTransportError } from "./errors.js";
import type { Transport } from "./transport.js";
import type { NimbusLogLine, NimbusLogOptions } from "./types.js";

/** Servers send an empty line every 15 s; three of them missing, the connection is dead. */
export const SILENCE_MS = 45_000;

/**
 * The values of a body with one JSON text on each line. Stopping early lets go of the connection,
 * and so does a silence of `silenceMs`, which fails as a broken connection does.
 */
export async function* jsonLines<T>(response: Response, silenceMs: number): AsyncGenerator<T, void, undefined> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let pieces: string[] = [];
  try {
    for (;;) {
      const { done, value } = await next(reader, silenceMs);
      if (done) break;
      const lines = decoder.decode(value, { stream: true }).split("\n");
      const rest = lines.pop() ?? "";
      for (const [index, line] of lines.entries()) {
        const text = index === 0 ? `${pieces.join("")}${line}` : line;
        if (index === 0) pieces = [];
        // An empty line only keeps the connection alive.
        if (text.trim() !== "") yield parse(text) as T;
      }
      pieces.push(rest);
    }
    // What has no line end was cut off, unless it is whole.
    const text = `${pieces.join("")}${decoder.decode()}`;
    if (text.trim() !== "") yield parse(text) as T;
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function next(reader: ReadableStreamDefaultReader<Uint8Array>, silenceMs: number): Promise<ReadableStreamReadResult<Uint8Array>> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => { reject(new Error(`nothing came for ${silenceMs} ms`)); }, silenceMs);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new NimbusTransportError(`the connection broke while an answer was read: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new NimbusTransportError("the connection broke in the middle of a line");
  }
}

/** Reads a log, line by line. */
export async function* logLines(transport: Transport, path: string, options: NimbusLogOptions): AsyncGenerator<NimbusLogLine, void, undefined> {
  const { tail, since, follow, signal } = options;
  const response = await transport.open({
    method: "GET",
    path,
    query: { tail, since, follow },
    headers: { accept: "application/x-ndjson" },
    signal,
  });
  yield* jsonLines<NimbusLogLine>(response, SILENCE_MS);
}
