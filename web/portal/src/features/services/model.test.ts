import { describe, expect, it } from "vitest";
import { services } from "~/mocks/work";
import { diff, draftProblems, EMPTY, isSealed, parsePorts, parseText, toBackend, toText } from "./model";

const SEALED = { resources: false, ports: false, egress: false, mounts: false };

describe("definition", () => {
  it("comes from a draft", () => {
    expect(toBackend({ ...EMPTY, name: "worker", image: "redis:7", command: "redis-server --save ''", ports: "6379, 8080/http" })).toEqual({
      kind: "sandbox",
      sandbox: {
        owner: { kind: "service" },
        backend: "container",
        root: { kind: "oci_image", source: { kind: "reference", reference: "redis:7" } },
        process: { argv: ["redis-server", "--save", ""] },
        ports: [
          { guestPort: 6379, protocol: "tcp" },
          { guestPort: 8080, protocol: "http" },
        ],
      },
    });
    expect(draftProblems({ ...EMPTY, name: "a b", ports: "x" })).toMatchObject({ name: expect.any(String) as string, image: "Enter an image.", ports: expect.any(String) as string });
    expect(draftProblems({ ...EMPTY, name: "db", kind: "external", url: "ftp://x" })).toHaveProperty("url");
    expect(parsePorts("70000")).toBeNull();
  });

  it("leaves out what is sealed, and what the policy does not let be said", () => {
    const [worker] = services();
    if (!worker) throw new Error("the mock has services");
    expect(isSealed(worker)).toBe(true);
    const text = toText(worker, SEALED);
    expect(text).not.toContain("redacted");
    expect(text).not.toContain("resources");
    expect(parseText(text)).toMatchObject({ ok: true, labels: { team: "search" }, backend: { kind: "sandbox" } });
  });

  it("must be JSON with a backend", () => {
    expect(parseText("{")).toMatchObject({ ok: false });
    expect(parseText("[]")).toMatchObject({ ok: false });
    expect(parseText('{"labels":{"a":1},"backend":{}}')).toEqual({ ok: false, problem: "Labels are pairs of text." });
    expect(parseText('{"backend":{"kind":"builtIn"}}')).toEqual({ ok: true, labels: null, backend: { kind: "builtIn" } });
  });

  it("is compared line by line", () => {
    expect(diff("a\nb\nc", "a\nx\nc\nd")).toEqual([
      { kind: "same", text: "a" },
      { kind: "mine", text: "b" },
      { kind: "theirs", text: "x" },
      { kind: "same", text: "c" },
      { kind: "theirs", text: "d" },
    ]);
  });
});
