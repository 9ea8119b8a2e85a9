import { ApiError, body, done, http } from "./client";
import { toCatalog, toMachine, toOperation } from "./narrow";
import type { CreateMachine, CreateToken, Machine, Operation, OperationView, OsKey, TierKey, Trace } from "./types";

const Prefer = "respond-async";
const PAGE = 500;

/** The answer to long work: an operation to follow. */
function accepted(answer: { data: OperationView | object } | object | undefined): Operation {
  if (answer !== undefined && "data" in answer && "steps" in answer.data) return toOperation(answer.data);
  throw new ApiError(0, "The server did not say which operation it started.", null);
}

export const api = {
  setupStatus: async () => (await body(http.GET("/api/setup/status"))).data,
  me: async () => (await body(http.GET("/api/me"))).data,
  login: async (credentials: { email: string; password: string }) =>
    (await body(http.POST("/api/auth/login", { body: credentials }))).data,
  register: async (person: { name: string; email: string; password: string }) =>
    (await body(http.POST("/api/auth/register", { body: person }))).data,
  logout: () => done(http.POST("/api/auth/logout")),
  changePassword: (change: { current_password: string; new_password: string }) =>
    done(http.PUT("/api/account/password", { body: change })),

  tokens: async () => (await body(http.GET("/api/tokens"))).data,
  createToken: async (token: CreateToken) => (await body(http.POST("/api/tokens", { body: token }))).data,
  revokeToken: (id: string) => done(http.DELETE("/api/tokens/{id}", { params: { path: { id } } })),
  browsers: async () => (await body(http.GET("/api/account/sessions"))).data,
  revokeBrowser: (id: string) => done(http.DELETE("/api/account/sessions/{id}", { params: { path: { id } } })),

  catalog: async () => toCatalog((await body(http.GET("/api/catalog"))).data),
  placement: async (tier: TierKey, os_template: OsKey, signal: AbortSignal) =>
    (await body(http.GET("/api/placement", { params: { query: { tier, os_template } }, signal }))).data,

  /** All pages: the portal sorts and filters on its own side. */
  machines: async (): Promise<Machine[]> => {
    const all: Machine[] = [];
    let cursor: string | null = null;
    do {
      const query: { limit: number; cursor?: string } = cursor === null ? { limit: PAGE } : { limit: PAGE, cursor };
      const page = await body(http.GET("/api/vms", { params: { query } }));
      all.push(...page.data.map(toMachine));
      cursor = page.next_cursor ?? null;
    } while (cursor !== null && all.length < 10 * PAGE);
    return all;
  },
  machine: async (id: string) => toMachine((await body(http.GET("/api/vms/{id}", { params: { path: { id } } }))).data),
  createMachine: async (machine: CreateMachine, idempotencyKey: string) =>
    accepted(await body(http.POST("/api/vms", { body: machine, params: { header: { Prefer, "Idempotency-Key": idempotencyKey } } }))),
  deleteMachine: async (id: string) =>
    accepted(await body(http.DELETE("/api/vms/{id}", { params: { path: { id }, header: { Prefer } } }))),
  power: async (id: string, verb: "start" | "shutdown" | "stop" | "reboot") =>
    accepted(await body(http.POST(`/api/vms/{id}/${verb}`, { params: { path: { id }, header: { Prefer } } }))),

  operations: async () =>
    (await body(http.GET("/api/operations", { params: { query: { limit: 100 } } }))).data.map(toOperation),
  operation: async (id: string) =>
    toOperation((await body(http.GET("/api/operations/{id}", { params: { path: { id } } }))).data),
  privateKey: async (id: string) =>
    (await body(http.POST("/api/operations/{id}/private-key", { params: { path: { id } } }))).data,
  operationTrace: async (id: string): Promise<Trace> =>
    (await body(http.GET("/api/operations/{id}/trace", { params: { path: { id } } }))).data,

  nodes: async (tier: TierKey) =>
    (await body(http.GET("/api/nodes", { params: { query: { include_scores: true, preview_tier: tier } } }))).data,
  addresses: async () => (await body(http.GET("/api/ips"))).data,
  reconcileAddresses: async () => (await body(http.POST("/api/ips/reconcile"))).data,
  traces: async () => (await body(http.GET("/api/traces", { params: { query: { limit: 100 } } }))).data,
  trace: async (id: string): Promise<Trace> =>
    (await body(http.GET("/api/traces/{id}", { params: { path: { id } } }))).data,
};
