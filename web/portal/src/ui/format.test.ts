import { describe, expect, it } from "vitest";
import { age, bytes, duration, elapsed, sentence, shortId, until } from "./format";

describe("format", () => {
  it("writes sizes", () => {
    expect(bytes(0)).toBe("0 B");
    expect(bytes(1536 * 1024 ** 2)).toBe("1.5 GiB");
    expect(bytes(64 * 1024 ** 3)).toBe("64 GiB");
  });
  it("makes a sentence of what a server says", () => {
    expect(sentence("this email address is taken")).toBe("This email address is taken.");
    expect(sentence("cloning template 9002: no space left")).toBe("Cloning template 9002: no space left.");
    expect(sentence("web-1 is taken")).toBe("web-1 is taken.");
    expect(sentence("Invalid email or password")).toBe("Invalid email or password.");
    expect(sentence("Done already.")).toBe("Done already.");
    expect(sentence("")).toBe("");
  });
  it("writes durations", () => {
    expect(duration(0.25)).toBe("250 µs");
    expect(duration(38)).toBe("38 ms");
    expect(duration(24_310)).toBe("24.3 s");
    expect(duration(65_000)).toBe("1 min 05 s");
    expect(elapsed(-5)).toBe("0 s");
    expect(elapsed(64_000)).toBe("1:04");
  });
  it("writes times", () => {
    const now = Date.parse("2026-05-04T10:00:00Z");
    expect(age("2026-05-04T09:55:00Z", now)).toBe("5 min");
    expect(age("2026-01-01T00:00:00Z", now)).toBe("2026-01-01");
    expect(until("2026-05-06T10:00:00Z", now)).toBe("in 2 d");
    expect(until("2026-05-04T09:00:00Z", now)).toBe("expired");
  });
  it("shortens ids", () => {
    expect(shortId("op_0196a0c2d7e57b4c9a10f2b3c4d5aa01")).toBe("op_0196a…aa01");
    expect(shortId("short")).toBe("short");
  });
});
