import { describe, expect, it } from "vitest";
import { refusal } from "./rules";

describe("refusal", () => {
  it("lets a running machine be stopped, and says why it cannot be started", () => {
    expect(refusal({ status: "running", operation_id: null }, "stop")).toBeNull();
    expect(refusal({ status: "running", operation_id: null }, "start")).toBe("It runs already.");
  });

  it("waits for the operation that runs", () => {
    expect(refusal({ status: "running", operation_id: "op_1" }, "reboot")).toBe("Another operation runs on it.");
  });

  it("lets what is broken be deleted", () => {
    expect(refusal({ status: "failed", operation_id: null }, "delete")).toBeNull();
    expect(refusal({ status: "unknown", operation_id: null }, "delete")).toBeNull();
  });
});
