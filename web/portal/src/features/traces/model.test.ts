import { describe, expect, it } from "vitest";
import type { Span } from "~/api/types";
import { extent, slowest, spanTitle, waterfall } from "./model";

function span(id: string, parent: string | null, start: number, length: number): Span {
  return { span_id: id, parent_id: parent, name: id, service: "s", kind: "internal", start_us: start, duration_us: length, outcome: "ok", attributes: {} };
}

describe("waterfall", () => {
  it("puts children under their parent, in the order of their start", () => {
    const rows = waterfall([span("c", "a", 50, 10), span("b", "a", 10, 30), span("a", null, 0, 100), span("d", "b", 12, 5)]);
    expect(rows.map((row) => [row.span.span_id, row.depth])).toEqual([
      ["a", 0],
      ["b", 1],
      ["d", 2],
      ["c", 1],
    ]);
  });

  it("counts overlapping children once", () => {
    const rows = waterfall([span("a", null, 0, 100), span("b", "a", 0, 60), span("c", "a", 40, 40)]);
    expect(rows[0]?.selfUs).toBe(20);
  });

  it("finds where the time went", () => {
    const rows = waterfall([span("a", null, 0, 100), span("b", "a", 0, 90), span("c", "b", 0, 20)]);
    expect(slowest(rows)?.span.span_id).toBe("b");
  });

  it("counts what a child handed over for all above it", () => {
    const rows = waterfall([span("a", null, 0, 100), span("b", "a", 0, 5), span("c", "b", 5, 90)]);
    expect(rows.map((row) => row.selfUs)).toEqual([5, 5, 90]);
    expect(slowest(rows)?.span.span_id).toBe("c");
  });

  it("names calls of the cluster by what they ask", () => {
    const call = { ...span("a", null, 0, 1), name: "pve", attributes: { method: "POST", path: "/nodes/{node}/qemu" } };
    expect(spanTitle(call)).toBe("POST /nodes/{node}/qemu");
    expect(spanTitle(span("reserve_ip", null, 0, 1))).toBe("reserve_ip");
  });

  it("shows orphans and survives a loop of parents", () => {
    const rows = waterfall([span("x", "gone", 5, 5), span("l", "m", 0, 1), span("m", "l", 0, 1), span("s", "s", 1, 1)]);
    expect(rows.map((row) => row.span.span_id).sort()).toEqual(["l", "m", "s", "x"]);
  });

  it("has an extent even for nothing", () => {
    expect(extent([])).toEqual({ from: 0, to: 1 });
  });
});
