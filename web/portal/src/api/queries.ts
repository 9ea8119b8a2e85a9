import { queryOptions, skipToken } from "@tanstack/react-query";
import { api } from "./endpoints";
import { ApiError } from "./client";
import { deployment } from "./deployment";
import { gpu } from "./gpu";
import type { OsKey, TierKey } from "./types";
import { work, type Files } from "./workloads";

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
  browsers: ["browsers"] as const,
  tenants: ["tenants"] as const,
  tenant: (tenant: string) => ["tenant", tenant] as const,
  sandboxes: (tenant: string) => ["sandboxes", tenant] as const,
  sandbox: (tenant: string, id: string) => ["sandbox", tenant, id] as const,
  commands: (tenant: string, id: string) => ["commands", tenant, id] as const,
  services: (tenant: string) => ["services", tenant] as const,
  service: (tenant: string, name: string) => ["service", tenant, name] as const,
  sessions: (tenant: string) => ["sessions", tenant] as const,
  session: (id: string) => ["session", id] as const,
  files: (at: Files, path: string) => ["files", at, path] as const,
  secrets: (tenant: string) => ["secrets", tenant] as const,
  volumes: (tenant: string) => ["volumes", tenant] as const,
  apiKeys: (tenant: string) => ["api-keys", tenant] as const,
  hosts: ["hosts"] as const,
  deployment: ["deployment"] as const,
  gpuJobs: ["gpu-jobs"] as const,
  gpuJob: (id: string) => ["gpu-job", id] as const,
  gpuWorkers: ["gpu-workers"] as const,
  gpuInference: ["gpu-inference"] as const,
  gpuSettings: ["gpu-settings"] as const,
  gpuUsage: (days: number, everybody: boolean) => ["gpu-usage", days, everybody] as const,
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
  browsers: () => queryOptions({ queryKey: keys.browsers, queryFn: api.browsers }),

  tenants: () => queryOptions({ queryKey: keys.tenants, queryFn: work.tenants, staleTime: 60_000 }),
  tenant: (tenant: string) => queryOptions({ queryKey: keys.tenant(tenant), queryFn: () => work.tenant(tenant) }),
  sandboxes: (tenant: string) => queryOptions({ queryKey: keys.sandboxes(tenant), queryFn: () => work.sandboxes(tenant) }),
  sandbox: (tenant: string, id: string) => queryOptions({ queryKey: keys.sandbox(tenant, id), queryFn: () => work.sandbox(tenant, id) }),
  commands: (tenant: string, id: string) => queryOptions({ queryKey: keys.commands(tenant, id), queryFn: () => work.commands(tenant, id), staleTime: 1_000 }),
  services: (tenant: string) => queryOptions({ queryKey: keys.services(tenant), queryFn: () => work.services(tenant) }),
  service: (tenant: string, name: string) => queryOptions({ queryKey: keys.service(tenant, name), queryFn: () => work.service(tenant, name) }),
  sessions: (tenant: string) => queryOptions({ queryKey: keys.sessions(tenant), queryFn: () => work.sessions(tenant) }),
  session: (id: string) => queryOptions({ queryKey: keys.session(id), queryFn: () => work.session(id) }),
  files: (at: Files, path: string) => queryOptions({ queryKey: keys.files(at, path), queryFn: () => work.files(at, path), staleTime: 2_000 }),
  secrets: (tenant: string) => queryOptions({ queryKey: keys.secrets(tenant), queryFn: () => work.secrets(tenant) }),
  volumes: (tenant: string) => queryOptions({ queryKey: keys.volumes(tenant), queryFn: () => work.volumes(tenant) }),
  apiKeys: (tenant: string) => queryOptions({ queryKey: keys.apiKeys(tenant), queryFn: () => work.apiKeys(tenant) }),
  hosts: () => queryOptions({ queryKey: keys.hosts, queryFn: work.hosts }),
  deployment: () => queryOptions({ queryKey: keys.deployment, queryFn: deployment.get }),

  gpuJobs: () => queryOptions({ queryKey: keys.gpuJobs, queryFn: gpu.jobs }),
  gpuJob: (id: string) => queryOptions({ queryKey: keys.gpuJob(id), queryFn: () => gpu.job(id) }),
  gpuWorkers: () => queryOptions({ queryKey: keys.gpuWorkers, queryFn: gpu.workers }),
  gpuInference: () => queryOptions({ queryKey: keys.gpuInference, queryFn: gpu.inference }),
  gpuSettings: () => queryOptions({ queryKey: keys.gpuSettings, queryFn: gpu.settings }),
  gpuUsage: (days: number, everybody: boolean) => queryOptions({ queryKey: keys.gpuUsage(days, everybody), queryFn: () => gpu.usage(days, everybody) }),
};

/** Refusals are final; only what may pass by itself is tried again. */
export function shouldRetry(count: number, error: Error): boolean {
  if (!(error instanceof ApiError)) return false;
  return count < 2 && (error.status === 0 || error.status >= 502);
}
