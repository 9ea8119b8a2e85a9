import { call, page } from "./client";
import type * as T from "./types";

const ASYNC = { prefer: "respond-async" };
const id = encodeURIComponent;

export const api = {
  setupStatus: () => call<T.SetupStatus>("/setup/status"),
  me: () => call<T.Me>("/me"),
  login: (body: { email: string; password: string }) => call<T.UserView>("/auth/login", { method: "POST", body }),
  register: (body: { name: string; email: string; password: string }) =>
    call<T.UserView>("/auth/register", { method: "POST", body }),
  logout: () => call<undefined>("/auth/logout", { method: "POST" }),
  changePassword: (body: { current_password: string; new_password: string }) =>
    call<{ ok: boolean }>("/account/password", { method: "PUT", body }),

  tokens: () => call<T.TokenView[]>("/tokens"),
  createToken: (body: { name: string; scopes: T.TokenScope[]; expires_in_days: number | null }) =>
    call<T.NewToken>("/tokens", { method: "POST", body }),
  revokeToken: (tokenId: string) => call<undefined>(`/tokens/${id(tokenId)}`, { method: "DELETE" }),
  sessions: () => call<T.SessionView[]>("/sessions"),
  revokeSession: (sessionId: string) => call<undefined>(`/sessions/${id(sessionId)}`, { method: "DELETE" }),

  catalog: () => call<T.Catalog>("/catalog"),
  placement: (tier: string, os: string, signal: AbortSignal) =>
    call<T.Placement>("/placement", { query: { tier, os_template: os }, signal }),

  /** All pages: the portal sorts and filters on its own side. */
  machines: async (): Promise<T.Machine[]> => {
    const all: T.Machine[] = [];
    let cursor: string | null = null;
    do {
      const next: { data: T.Machine[]; nextCursor: string | null } = await page<T.Machine[]>("/vms", {
        query: { limit: 100, cursor: cursor ?? undefined },
      });
      all.push(...next.data);
      cursor = next.nextCursor;
    } while (cursor !== null && all.length < 5000);
    return all;
  },
  machine: (vmId: string) => call<T.Machine>(`/vms/${id(vmId)}`),
  createMachine: (body: T.CreateMachine, idempotencyKey: string) =>
    call<T.Operation>("/vms", { method: "POST", body, headers: { ...ASYNC, "idempotency-key": idempotencyKey } }),
  deleteMachine: (vmId: string) => call<T.Operation>(`/vms/${id(vmId)}`, { method: "DELETE", headers: ASYNC }),
  power: (vmId: string, verb: "start" | "shutdown" | "stop" | "reboot") =>
    call<T.Operation>(`/vms/${id(vmId)}/${verb}`, { method: "POST", headers: ASYNC }),

  operations: () => call<T.Operation[]>("/operations", { query: { limit: 100 } }),
  operation: (operationId: string) => call<T.Operation>(`/operations/${id(operationId)}`),
  privateKey: (operationId: string) =>
    call<T.PrivateKey>(`/operations/${id(operationId)}/private-key`, { method: "POST" }),
  operationTrace: (operationId: string) => call<T.Trace>(`/operations/${id(operationId)}/trace`),

  nodes: (tier: string) => call<T.NodeView[]>("/nodes", { query: { include_scores: true, preview_tier: tier } }),
  addresses: () => call<T.AddressRow[]>("/ips"),
  reconcileAddresses: () => call<T.ReconcileReport>("/ips/reconcile", { method: "POST" }),
  traces: () => call<T.TraceSummary[]>("/traces", { query: { limit: 100 } }),
  trace: (traceId: string) => call<T.Trace>(`/traces/${id(traceId)}`),
};
