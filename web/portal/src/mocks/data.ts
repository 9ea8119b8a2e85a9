import type * as T from "~/api/types";

/** Fixed point in time for everything that is made up here. */
export const NOW = Date.parse("2026-05-04T10:00:00.000000Z");
const ago = (seconds: number, now: number) => new Date(now - seconds * 1000).toISOString();
const GIB = 1024 ** 3;

export const me: T.Me = {
  id: "usr_0196a0c2d7e57b4c9a10f2b3c4d5e6f7",
  name: "Ada Lindqvist",
  email: "ada@example.org",
  is_admin: true,
  tenant_id: "ten_0196a0c2d7e57b4c9a10f2b3c4d5e6f8",
  created_at: ago(86_400 * 40, NOW),
};

export const catalog: T.Catalog = {
  tiers: [
    { key: "small", vcpu: 1, mem_mib: 1024, disk_gib: 15, admin_only: false, fits: 41, allowed: true },
    { key: "medium", vcpu: 2, mem_mib: 2048, disk_gib: 30, admin_only: false, fits: 22, allowed: true },
    { key: "large", vcpu: 4, mem_mib: 4096, disk_gib: 60, admin_only: false, fits: 9, allowed: true },
    { key: "xl", vcpu: 8, mem_mib: 8192, disk_gib: 120, admin_only: true, fits: 3, allowed: false, reason: "Administrators only." },
  ],
  os: [
    { key: "ubuntu-24.04", label: "Ubuntu 24.04 LTS", user: "ubuntu", nodes: 3 },
    { key: "ubuntu-22.04", label: "Ubuntu 22.04 LTS", user: "ubuntu", nodes: 3 },
    { key: "debian-12", label: "Debian 12", user: "debian", nodes: 2 },
    { key: "debian-11", label: "Debian 11", user: "debian", nodes: 0 },
  ],
  quota: { used: 6, limit: 20 },
  cluster: { reachable: true },
};

export const placement: T.Placement = {
  node: "pve1",
  node_score: 0.6948,
  reasons: "It has the most memory free, 40 of 64 GiB, and keeps the best score after the placement.",
  rejected: [{ node: "pve3", reasons: ["insufficient_mem", "insufficient_disk"] }],
};

const STEP_NAMES: readonly [string, string, number][] = [
  ["reserve_ip", "Reserve address", 38],
  ["pick_node", "Pick node", 212],
  ["clone_template", "Clone template", 24_310],
  ["configure_vm", "Configure cloud-init", 418],
  ["resize_disk", "Resize disk", 640],
  ["start_vm", "Start VM", 3_120],
  ["wait_guest_agent", "Wait for guest", 15_204],
  ["commit_ip", "Commit address", 9],
  ["save_vm", "Finish", 14],
];

/** A provisioning operation as it looks with `done` steps behind it. */
export function provision(done: number, options: { state?: T.OperationState; failAt?: number; label?: string; id?: string; now?: number; vm?: string } = {}): T.Operation {
  const now = options.now ?? NOW;
  const state = options.state ?? (done >= STEP_NAMES.length ? "succeeded" : "running");
  const label = options.label ?? "calm-heron";
  let at = now - STEP_NAMES.slice(0, done).reduce((sum, [, , ms]) => sum + ms, 0) - (state === "running" ? 6_400 : 0);
  const start = at;
  const steps = STEP_NAMES.map(([key, title, ms], index): T.Step => {
    if (state === "failed" && options.failAt !== undefined) {
      if (index < options.failAt) {
        const undone = ["reserve_ip", "clone_template"].includes(key);
        return { key, label: title, state: undone ? "undone" : "done", started_at: new Date(at).toISOString(), finished_at: new Date(at + ms).toISOString(), duration_ms: ms };
      }
      if (index === options.failAt) return { key, label: title, state: "failed", started_at: new Date(at).toISOString(), finished_at: new Date(at + ms).toISOString(), duration_ms: ms };
      return { key, label: title, state: "pending" };
    }
    if (index < done) {
      const step: T.Step = { key, label: title, state: "done", started_at: new Date(at).toISOString(), finished_at: new Date(at + ms).toISOString(), duration_ms: ms };
      at += ms;
      return step;
    }
    if (index === done && state === "running") return { key, label: title, state: "running", started_at: new Date(at).toISOString() };
    return { key, label: title, state: "pending" };
  });
  return {
    id: options.id ?? "op_0196a0c2d7e57b4c9a10f2b3c4d5aa01",
    type: "vm.provision",
    state,
    target_type: "vm",
    target_id: options.vm ?? "vm_0196a0c2d7e57b4c9a10f2b3c4d5bb01",
    target_label: label,
    message: state === "failed" ? "clone failed" : "",
    steps,
    result:
      state === "succeeded"
        ? {
            id: options.vm ?? "vm_0196a0c2d7e57b4c9a10f2b3c4d5bb01",
            vmid: 104,
            hostname: label,
            ip: "10.77.0.57",
            username: "ubuntu",
            os: "ubuntu-24.04",
            tier: "medium",
            node: "pve1",
            key_name: `nimbus-${label}`,
            has_private_key: true,
          }
        : null,
    fault:
      state === "failed"
        ? {
            code: "machine.proxmox_task_failed",
            message: "pve2 could not clone the template: storage 'local-lvm' has no space left",
            requestId: "req-7f3a90c1d2",
            timestamp: new Date(now).toISOString(),
            severity: "error",
            retryable: true,
            detail: null,
            remediation: { action: "retry", message: "Free space on the storage of pve2, or try again: another node may take it." },
          }
        : null,
    created_at: new Date(start).toISOString(),
    started_at: new Date(start).toISOString(),
    finished_at: state === "running" || state === "queued" ? null : new Date(start + 44_120).toISOString(),
    trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
  };
}

export function simpleOperation(type: string, label: string, state: T.OperationState, seconds: number, now = NOW, id = `op_${type.replace(".", "")}${label.replace(/\W/g, "")}`): T.Operation {
  return {
    id,
    type,
    state,
    target_type: "vm",
    target_id: `vm_${label}`,
    target_label: label,
    message: "",
    steps: [{ key: "run", label: type === "vm.start" ? "Start VM" : "Stop VM", state: state === "running" ? "running" : "done", started_at: ago(seconds, now), duration_ms: state === "running" ? null : 3_120 }],
    result: null,
    fault: null,
    created_at: ago(seconds, now),
    started_at: ago(seconds, now),
    finished_at: state === "running" ? null : ago(seconds - 3.2, now),
    trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
  };
}

interface Seed {
  name: string;
  ip: string | null;
  node: string | null;
  tier: string;
  os: string;
  status: T.MachineStatus;
  seconds: number;
  vmid: number | null;
  operation?: string;
}

const SEEDS: readonly Seed[] = [
  { name: "calm-heron", ip: "10.77.0.57", node: "pve1", tier: "medium", os: "ubuntu-24.04", status: "provisioning", seconds: 31, vmid: 109, operation: "op_0196a0c2d7e57b4c9a10f2b3c4d5aa01" },
  { name: "build-runner-2", ip: "10.77.0.56", node: "pve2", tier: "large", os: "debian-12", status: "running", seconds: 5_400, vmid: 108 },
  { name: "build-runner-1", ip: "10.77.0.55", node: "pve1", tier: "large", os: "debian-12", status: "running", seconds: 6_000, vmid: 107 },
  { name: "thesis-db", ip: "10.77.0.53", node: "pve2", tier: "medium", os: "ubuntu-22.04", status: "stopped", seconds: 86_400 * 9, vmid: 105 },
  { name: "web-1", ip: "10.77.0.51", node: "pve1", tier: "small", os: "ubuntu-24.04", status: "running", seconds: 86_400 * 26, vmid: 103 },
  { name: "old-wiki", ip: "10.77.0.50", node: "pve3", tier: "small", os: "debian-11", status: "unknown", seconds: 86_400 * 51, vmid: 101 },
];

export function machines(now = NOW): T.Machine[] {
  return SEEDS.map((seed, index) => ({
    ID: index === 0 ? "vm_0196a0c2d7e57b4c9a10f2b3c4d5bb01" : `vm_0196a0c2d7e57b4c9a10f2b3c4d5bc0${index}`,
    CreatedAt: ago(seed.seconds, now),
    UpdatedAt: ago(seed.seconds, now),
    vmid: seed.vmid,
    hostname: seed.name,
    ip: seed.ip,
    node: seed.node,
    tier: seed.tier,
    os_template: seed.os,
    username: seed.os.startsWith("ubuntu") ? "ubuntu" : "debian",
    status: seed.status,
    owner_id: me.id,
    key_name: index % 2 === 0 ? null : `nimbus-${seed.name}`,
    ssh_pubkey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH0Zs5w3aJb2xkq0aB6bQd6uQ0g2m7m1dK3JX0M8w3cP ada@laptop",
    error_msg: null,
    operation_id: seed.operation ?? null,
  }));
}

export const nodes: T.NodeView[] = [
  {
    name: "pve1", status: "online", lock_state: "none", tags: [], auto_tags: ["x86", "ssd"], cpu: 0.1, max_cpu: 16,
    mem_used: 20 * GIB, mem_total: 64 * GIB, mem_allocated: 24 * GIB, disk_used: 200 * GIB, disk_total: 800 * GIB, disk_allocated: 260 * GIB,
    disk_pool_name: "local-lvm", vm_count: 4, vm_count_total: 6, ip: "10.77.0.11", is_self_host: false, templates: ["ubuntu-24.04", "ubuntu-22.04", "debian-12"],
    score: { score: 0.694805, spec: "balanced", reasons: [], components: { mem_headroom: 0.589844, cpu_headroom: 0.8375, disk_headroom: 0.7125, mem_weighted: 0.393229, cpu_weighted: 0.139583, disk_weighted: 0.11875, total: 0.694805 } },
    preview_tier: "medium", next_for: ["small", "medium", "large"],
  },
  {
    name: "pve2", status: "online", lock_state: "none", tags: [], auto_tags: ["x86"], cpu: 0.05, max_cpu: 8,
    mem_used: 14 * GIB, mem_total: 32 * GIB, mem_allocated: 10 * GIB, disk_used: 100 * GIB, disk_total: 400 * GIB, disk_allocated: 150 * GIB,
    disk_pool_name: "local-lvm", vm_count: 2, vm_count_total: 3, ip: "10.77.0.12", is_self_host: false, templates: ["ubuntu-24.04", "ubuntu-22.04", "debian-12"],
    score: { score: 0.637734, spec: "balanced", reasons: [], components: { mem_headroom: 0.492188, cpu_headroom: 0.825, disk_headroom: 0.675, mem_weighted: 0.328125, cpu_weighted: 0.1375, disk_weighted: 0.1125, total: 0.637734 } },
    preview_tier: "medium", next_for: [],
  },
  {
    name: "pve3", status: "online", lock_state: "none", tags: [], auto_tags: ["x86"], cpu: 0.2, max_cpu: 8,
    mem_used: 13.9 * GIB, mem_total: 16 * GIB, mem_allocated: 8 * GIB, disk_used: 385 * GIB, disk_total: 400 * GIB, disk_allocated: 390 * GIB,
    disk_pool_name: "local-lvm", vm_count: 1, vm_count_total: 5, ip: "10.77.0.13", is_self_host: false, templates: ["ubuntu-24.04"],
    score: { score: 0, spec: "cpu", reasons: ["insufficient_mem", "insufficient_disk"], components: { mem_headroom: -0.009375, cpu_headroom: 0.675, disk_headroom: -0.0375, mem_weighted: 0, cpu_weighted: 0, disk_weighted: 0, total: 0 } },
    preview_tier: "medium", next_for: [],
  },
];

export function addresses(now = NOW): T.AddressRow[] {
  const used = new Map(machines(now).map((machine) => [machine.ip, machine]));
  return Array.from({ length: 201 }, (_, index): T.AddressRow => {
    const ip = `10.77.0.${50 + index}`;
    const machine = used.get(ip);
    if (machine) {
      return {
        ip, status: machine.status === "provisioning" ? "reserved" : "allocated", source: "local", vmid: machine.vmid ?? null, hostname: machine.hostname,
        reserved_at: machine.CreatedAt, allocated_at: machine.status === "provisioning" ? null : machine.CreatedAt, last_seen_at: ago(24, now), missed_cycles: machine.status === "unknown" ? 2 : 0, stranded: false,
      };
    }
    if (ip === "10.77.0.54") {
      return { ip, status: "allocated", source: "adopted", vmid: 220, hostname: "printer-proxy", reserved_at: null, allocated_at: ago(86_400 * 3, now), last_seen_at: ago(24, now), missed_cycles: 0, stranded: false };
    }
    return { ip, status: "free", source: "local", vmid: null, hostname: null, reserved_at: null, allocated_at: null, last_seen_at: null, missed_cycles: 0, stranded: false };
  });
}

export function tokens(now = NOW): T.TokenView[] {
  return [
    { id: "tok_1", name: "laptop", scopes: ["machines:read", "machines:write"], prefix: "nbp_1a2b", created_at: ago(86_400 * 12, now), expires_at: ago(-86_400 * 78, now), last_used_at: ago(420, now) },
    { id: "tok_2", name: "ci", scopes: ["machines:read"], prefix: "nbp_9f3e", created_at: ago(86_400 * 2, now), expires_at: null, last_used_at: null },
  ];
}

export function sessions(now = NOW): T.SessionView[] {
  return [
    { id: "ses_1", created_at: ago(3_600 * 5, now), expires_at: ago(-86_400 * 6.8, now), address: "10.77.0.4", user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", current: true },
    { id: "ses_2", created_at: ago(86_400 * 2, now), expires_at: ago(-86_400 * 5, now), address: "10.77.0.9", user_agent: "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Version/19.0 Mobile Safari/604.1", current: false },
  ];
}

export function traces(now = NOW): T.TraceSummary[] {
  return [
    { trace_id: "4bf92f3577b34da6a3ce929d0e0e4736", root: "POST /api/vms", service: "gateway", started_at: ago(44, now), duration_ms: 43_965, outcome: "ok", spans: 12 },
    { trace_id: "5cf92f3577b34da6a3ce929d0e0e4737", root: "GET /api/nodes", service: "gateway", started_at: ago(80, now), duration_ms: 31.4, outcome: "ok", spans: 9 },
    { trace_id: "6df92f3577b34da6a3ce929d0e0e4738", root: "POST /api/vms", service: "gateway", started_at: ago(700, now), duration_ms: 9_120, outcome: "error", spans: 17 },
    { trace_id: "7ef92f3577b34da6a3ce929d0e0e4739", root: "POST /api/ips/reconcile", service: "gateway", started_at: ago(1_400, now), duration_ms: 212, outcome: "ok", spans: 14 },
  ];
}

function span(id: string, parent: string | null, name: string, service: string, startMs: number, ms: number, attributes: Record<string, unknown> = {}, outcome = "ok"): T.Span {
  return { span_id: id, parent_id: parent, name, service, kind: "internal", start_us: Math.round(startMs * 1000), duration_us: Math.round(ms * 1000), outcome, attributes };
}

export const trace: T.Trace = {
  trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
  spans: [
    span("a", null, "POST /api/vms", "gateway", 0, 43_965, { "http.status": 202, request_id: "req-7f3a90c1d2" }),
    span("b", "a", "provisioner.machine_create", "provisioner", 4, 43_958),
    span("c", "b", "reserve_ip", "provisioner", 6, 38),
    span("d", "c", "ippool.reserve", "ippool", 9, 31, { address: "10.77.0.57" }),
    span("e", "b", "pick_node", "provisioner", 46, 212),
    span("f", "e", "GET /cluster/resources", "pve", 50, 96, { status: 200 }),
    span("g", "b", "clone_template", "provisioner", 260, 24_310),
    span("h", "g", "POST /nodes/{node}/qemu/{vmid}/clone", "pve", 262, 140, { node: "pve1", status: 200 }),
    span("i", "g", "wait task", "pve", 402, 24_160, { upid: "UPID:pve1:0000A1B2:00C3D4E5:6816F1A0:qmclone:9000:nimbus@pve!portal:" }),
    span("j", "b", "start_vm", "provisioner", 25_640, 3_120),
    span("k", "b", "wait_guest_agent", "provisioner", 28_764, 15_150),
    span("l", "b", "commit_ip", "ippool", 43_920, 9),
  ],
};
