import { describe, expect, it } from "vitest";
import { readEvents, type StreamMessage } from "./sse";

async function read(parts: readonly string[]): Promise<StreamMessage[]> {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const part of parts) controller.enqueue(encoder.encode(part));
      controller.close();
    },
  });
  const found: StreamMessage[] = [];
  await readEvents(body, (message) => found.push(message));
  return found;
}

describe("an event stream", () => {
  const TEXT = 'event: log\nid: 7\ndata: {"a":1}\n\n: still here\n\ndata: one\ndata: two\n\ndata: [DONE]\n\n';
  const WHOLE: StreamMessage[] = [
    { event: "log", id: "7", data: '{"a":1}' },
    { event: "message", id: null, data: "one\ntwo" },
    { event: "message", id: null, data: "[DONE]" },
  ];

  it("is the same however it is cut", async () => {
    for (const text of [TEXT, TEXT.replaceAll("\n", "\r\n")]) {
      for (let at = 0; at <= text.length; at += 1) expect(await read([text.slice(0, at), text.slice(at)])).toEqual(WHOLE);
      expect(await read(Array.from(text))).toEqual(WHOLE);
    }
  });

  it("keeps letters that arrive in pieces, and drops a message that never ended", async () => {
    const bytes = new TextEncoder().encode("data: zwölf €\n\ndata: half");
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
        controller.close();
      },
    });
    const found: StreamMessage[] = [];
    await readEvents(body, (message) => found.push(message));
    expect(found).toEqual([{ event: "message", id: null, data: "zwölf €" }]);
  });
});
