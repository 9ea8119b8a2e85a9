import { describe, expect, it } from "vitest";
import { LogLines } from "./lines";

const encoder = new TextEncoder();
const texts = (lines: LogLines) => lines.rows().map((row) => row.text);

describe("lines of a log", () => {
  it("are the same however the bytes are cut", () => {
    const text = "epoch 1 ✓\nepoch 2 zwölf\n\nloss 0.12";
    const bytes = encoder.encode(text);
    for (let at = 0; at <= bytes.length; at += 1) {
      const lines = new LogLines();
      lines.push(bytes.subarray(0, at));
      lines.push(bytes.subarray(at));
      lines.finish();
      expect(texts(lines)).toEqual(["epoch 1 ✓", "epoch 2 zwölf", "", "loss 0.12"]);
    }
  });

  it("keep the name of the last line while it grows", () => {
    const lines = new LogLines();
    lines.push(encoder.encode("10 %"));
    const [before] = lines.rows();
    lines.push(encoder.encode("\r20 %\n"));
    const [after] = lines.rows();
    expect(after?.id).toBe(before?.id);
    expect(texts(lines)).toEqual(["10 %\r20 %"]);
  });

  it("show bytes that are no text, and cut what never ends", () => {
    const lines = new LogLines();
    lines.push(Uint8Array.of(0x61, 0xff, 0x0a));
    lines.push(encoder.encode("x".repeat(20_000)));
    lines.finish();
    expect(texts(lines).map((text) => text.length)).toEqual([2, 8_192, 8_192, 3_616]);
    expect(texts(lines)[0]).toBe("a\uFFFD");
  });

  it("let the first ones go, and say how many", () => {
    const lines = new LogLines();
    lines.push(encoder.encode(Array.from({ length: 10_050 }, (_, index) => `${index}\n`).join("")));
    expect(lines.dropped).toBe(50);
    expect(texts(lines)[0]).toBe("50");
    expect(lines.rows()).toHaveLength(10_000);
    expect(new Set(lines.rows().map((row) => row.id)).size).toBe(10_000);
  });
});
