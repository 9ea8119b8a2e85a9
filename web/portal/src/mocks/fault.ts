import type { Fault } from "~/api/types";
import { NOW } from "./data";

export function fault(code: string, message: string, extra: Partial<Fault> = {}): Fault {
  return {
    code,
    message,
    requestId: "req-0011223344",
    timestamp: new Date(NOW).toISOString(),
    severity: "error",
    retryable: false,
    detail: null,
    remediation: { action: "fix_request", message: "Change the request and send it again." },
    ...extra,
  };
}
