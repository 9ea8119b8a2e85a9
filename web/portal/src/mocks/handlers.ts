import { http, HttpResponse } from "msw";
import type { Fault } from "~/api/types";
import * as data from "./data";
import { fault } from "./fault";
import { gpuHandlers } from "./gpu";
import { workHandlers } from "./work";

export function ok(value: unknown, status = 200) {
  return HttpResponse.json({ success: true, data: value }, { status });
}

export function refuse(status: number, code: string, message: string, extra: Partial<Fault> = {}) {
  return HttpResponse.json({ success: false, error: message, fault: fault(code, message, extra) }, { status });
}

/** A calm installation with an administrator signed in. Tests override single routes. */
export const handlers = [
  ...workHandlers,
  ...gpuHandlers,
  http.get("*/api/setup/status", () => ok({ configured: true, needs_admin_setup: false, missing: [] })),
  http.get("*/api/me", () => ok(data.me)),
  http.get("*/api/catalog", () => ok(data.catalog)),
  http.get("*/api/placement", () => ok(data.placement)),
  http.get("*/api/vms", () => ok(data.machines())),
  http.get("*/api/vms/:id", ({ params }) => {
    const machine = data.machines().find((item) => item.ID === params["id"]);
    return machine ? ok(machine) : refuse(404, "op.not_found", "There is no such machine.");
  }),
  http.post("*/api/vms", () => ok(data.provision(0), 202)),
  http.get("*/api/operations", () => ok([data.provision(2)])),
  http.get("*/api/operations/:id", () => ok(data.provision(2))),
  http.get("*/api/nodes", () => ok(data.nodes)),
  http.get("*/api/ips", () => ok(data.addresses())),
  http.get("*/api/tokens", () => ok(data.tokens())),
  http.get("*/api/account/sessions", () => ok(data.sessions())),
  http.get("*/api/traces", () => ok(data.traces())),
  http.get("*/api/traces/:id", () => ok(data.trace)),
];
