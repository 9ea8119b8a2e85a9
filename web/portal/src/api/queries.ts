import { queryOptions, skipToken } from "@tanstack/react-query";
import { api } from "./endpoints";
import { ApiError } from "./client";
import type { OsKey, TierKey } from "./types";

/** Every key in one place, so that the event reducer and the pages agree. */
export const keys = {
  me: ["me"] as const,
  setup: ["setup"] as const,
  catalog: ["catalog"] as const,
  placement: (tier: string | null, os: string | null) => ["placement", tier, os] as const,
  machines: ["machines"] as const,
  machine: (id: string) => ["machine", id] as const,
  operations: ["operations"] as const,
  operation: (id: string) => ["operation", id] as const,
  nodes: (tier: string) => ["nodes", tier] as const,
  addresses: ["addresses"] as const,
  traces: ["traces"] as const,
  trace: (id: string) => ["trace", id] as const,
  operationTrace: (id: string) => ["operation-trace", id] as const,
  tokens: ["tokens"] as const,
  sessions: ["sessions"] as const,
};

export const queries = {
  me: () => queryOptions({ queryKey: keys.me, queryFn: api.me, staleTime: 60_000 }),
  setup: () => queryOptions({ queryKey: keys.setup, queryFn: api.setupStatus, staleTime: 30_000 }),
  catalog: () => queryOptions({ queryKey: keys.catalog, queryFn: api.catalog, staleTime: 5_000 }),
  placement: (tier: TierKey | null, os: OsKey | null) =>
    queryOptions({
      queryKey: keys.placement(tier, os),
      queryFn: tier === null || os === null ? skipToken : ({ signal }) => api.placement(tier, os, signal),
      staleTime: 5_000,
    }),
  machines: () => queryOptions({ queryKey: keys.machines, queryFn: api.machines }),
  machine: (id: string) => queryOptions({ queryKey: keys.machine(id), queryFn: () => api.machine(id) }),
  operations: () => queryOptions({ queryKey: keys.operations, queryFn: api.operations }),
  operation: (id: string) => queryOptions({ queryKey: keys.operation(id), queryFn: () => api.operation(id) }),
  nodes: (tier: TierKey) => queryOptions({ queryKey: keys.nodes(tier), queryFn: () => api.nodes(tier) }),
  addresses: () => queryOptions({ queryKey: keys.addresses, queryFn: api.addresses }),
  traces: () => queryOptions({ queryKey: keys.traces, queryFn: api.traces }),
  trace: (id: string) => queryOptions({ queryKey: keys.trace(id), queryFn: () => api.trace(id), staleTime: Infinity }),
  operationTrace: (id: string) =>
    queryOptions({ queryKey: keys.operationTrace(id), queryFn: () => api.operationTrace(id) }),
  tokens: () => queryOptions({ queryKey: keys.tokens, queryFn: api.tokens }),
  sessions: () => queryOptions({ queryKey: keys.sessions, queryFn: api.sessions }),
};

/** Refusals are final; only what may pass by itself is tried again. */
export function shouldRetry(count: number, error: Error): boolean {
  if (!(error instanceof ApiError)) return false;
  return count < 2 && (error.status === 0 || error.status >= 502);
}
