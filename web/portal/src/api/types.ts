/** What the API sends and takes. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Fault {
  code: string;
  message: string;
  requestId: string;
  timestamp: string;
  severity: string;
  retryable: boolean;
  detail?: Record<string, unknown> | null;
  remediation: { action: string; message: string };
}

export interface UserView {
  id: string;
  name: string;
  email: string;
  is_admin: boolean;
}

export interface Me extends UserView {
  tenant_id: string;
  created_at: string;
}

export interface SetupStatus {
  configured: boolean;
  needs_admin_setup: boolean;
  missing: { setting: string; expected: string }[];
}

export interface Health {
  ok: boolean;
  status: string;
  timestamp: string;
  version: string;
  proxmox_ok: boolean;
  proxmox_version?: string | null;
  proxmox_error?: string | null;
}

export type TokenScope = "machines:read" | "machines:write" | "admin";

export interface TokenView {
  id: string;
  name: string;
  scopes: string[];
  prefix: string;
  created_at: string;
  expires_at?: string | null;
  last_used_at?: string | null;
}

export interface NewToken extends TokenView {
  token: string;
}

export interface SessionView {
  id: string;
  created_at: string;
  expires_at: string;
  address?: string | null;
  user_agent?: string | null;
  current: boolean;
}

export interface Tier {
  key: string;
  vcpu: number;
  mem_mib: number;
  disk_gib: number;
  admin_only: boolean;
  fits?: number | null;
  allowed: boolean;
  reason?: string | null;
}

export interface OsChoice {
  key: string;
  label: string;
  user: string;
  nodes: number;
}

export interface Catalog {
  tiers: Tier[];
  os: OsChoice[];
  quota: { used: number; limit?: number | null };
  cluster: { reachable: boolean; error?: string | null };
}

export interface Placement {
  node?: string | null;
  node_score?: number | null;
  reasons?: string | null;
  rejected?: { node?: string | null; reasons: string[] }[];
}

export type MachineStatus = "provisioning" | "running" | "stopped" | "paused" | "unknown" | "deleting" | "failed";

export interface Machine {
  ID: string;
  CreatedAt: string;
  UpdatedAt: string;
  vmid?: number | null;
  hostname: string;
  ip?: string | null;
  node?: string | null;
  tier: string;
  os_template: string;
  username: string;
  status: MachineStatus;
  owner_id: string;
  key_name?: string | null;
  ssh_pubkey?: string | null;
  error_msg?: string | null;
  operation_id?: string | null;
}

export interface CreateMachine {
  hostname: string;
  tier: string;
  os_template: string;
  ssh_pubkey?: string;
  generate_key?: boolean;
}

export type StepState = "pending" | "running" | "done" | "failed" | "undoing" | "undone";

export interface Step {
  key: string;
  label: string;
  state: StepState;
  started_at?: string | null;
  finished_at?: string | null;
  duration_ms?: number | null;
}

export type OperationState = "queued" | "running" | "succeeded" | "failed";

export interface OperationResult {
  id?: string;
  vmid?: number | null;
  hostname?: string;
  ip?: string | null;
  username?: string;
  os?: string;
  tier?: string;
  node?: string | null;
  key_name?: string | null;
  warning?: string | null;
  has_private_key?: boolean;
}

export interface Operation {
  id: string;
  type: string;
  state: OperationState;
  target_type: string;
  target_id: string;
  target_label: string;
  message?: string | null;
  steps: Step[];
  result?: OperationResult | null;
  fault?: Fault | null;
  created_at: string;
  started_at?: string | null;
  finished_at?: string | null;
  trace_id?: string | null;
}

export interface PrivateKey {
  key_name: string;
  private_key: string;
}

export interface NodeScore {
  score: number;
  components?: Record<string, number> | null;
  spec: string;
  reasons: string[];
}

export interface NodeView {
  name: string;
  status: string;
  lock_state: string;
  tags: string[];
  auto_tags: string[];
  cpu: number;
  max_cpu: number;
  mem_used: number;
  mem_total: number;
  mem_allocated: number;
  disk_used: number;
  disk_total: number;
  disk_allocated: number;
  disk_pool_name?: string | null;
  vm_count: number;
  vm_count_total: number;
  ip?: string | null;
  is_self_host: boolean;
  templates: string[];
  score?: NodeScore | null;
  preview_tier?: string | null;
  next_for?: string[] | null;
}

export interface AddressRow {
  ip: string;
  status: string;
  source: string;
  vmid?: number | null;
  hostname?: string | null;
  reserved_at?: string | null;
  allocated_at?: string | null;
  last_seen_at?: string | null;
  missed_cycles: number;
  stranded: boolean;
}

export interface ReconcileReport {
  adopted: { ip: string; vmid?: number | null; hostname?: string | null; prior_status: string }[];
  conflicts: { ip: string; local_vmid?: number | null; proxmox_vmid?: number | null; node?: string | null }[];
  freed: unknown[];
  vacated: unknown[];
  no_ops: number;
  snapshot_at: string;
}

export interface TraceSummary {
  trace_id: string;
  root: string;
  service: string;
  started_at: string;
  duration_ms: number;
  outcome: string;
  spans: number;
}

export interface Span {
  span_id: string;
  parent_id?: string | null;
  name: string;
  service: string;
  kind: string;
  start_us: number;
  duration_us: number;
  outcome: string;
  attributes: Record<string, unknown>;
}

export interface Trace {
  trace_id: string;
  spans: Span[];
}

export interface MachineEvent {
  kind: "created" | "changed" | "deleted";
  vm: Machine;
}
