/** One message of an event stream that came as the answer to a request. */
export interface StreamMessage {
  event: string;
  data: string;
  id: string | null;
}

function message(block: readonly string[]): StreamMessage | null {
  let event = "message";
  let id: string | null = null;
  const data: string[] = [];
  for (const line of block) {
    const colon = line.indexOf(":");
    // A line that begins with a colon keeps the connection open and says nothing.
    if (colon === 0) continue;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") data.push(value);
    else if (name === "event") event = value;
    else if (name === "id") id = value;
  }
  return data.length === 0 ? null : { event, data: data.join("\n"), id };
}

/**
 * Reads an event stream to its end. `EventSource` can neither send a body nor say why it was refused, so streams that
 * need one of both are fetched.
 */
export async function readEvents(body: ReadableStream<Uint8Array>, onMessage: (message: StreamMessage) => void): Promise<void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let block: string[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
    // A carriage return at the very end may be the first half of a line's end.
    const held = !done && rest.endsWith("\r") ? 1 : 0;
    const lines = rest.slice(0, rest.length - held).split(/\r\n|\n|\r/);
    rest = (lines.pop() ?? "") + rest.slice(rest.length - held);
    for (const line of lines) {
      if (line !== "") {
        block.push(line);
        continue;
      }
      const found = message(block);
      block = [];
      if (found !== null) onMessage(found);
    }
    // What is not closed by an empty line was cut off on its way.
    if (done) return;
  }
}
