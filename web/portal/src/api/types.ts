/**
 * The shapes of the API, from the generated document. Where the document says only "text", the values that mean
 * something here are named, and `narrow.ts` makes sure of them at run time.
 */
import type { components } from "./schema";

type S = components["schemas"];

export type Fault = Omit<S["FaultView"], "detail" | "remediation"> & {
  detail?: Record<string, unknown> | null;
  remediation?: S["FaultView"]["remediation"] | null;
};
export type UserView = S["UserView"];
export type Me = S["MeView"];
export type SetupStatus = S["SetupView"];

export type TokenView = S["TokenView"];
export type NewToken = S["NewTokenView"];
export type CreateToken = S["CreateTokenBody"];
export type TokenScope = "machines:read" | "machines:write" | "workloads:read" | "workloads:write" | "gpu" | "admin";
export type SessionView = S["SessionView"];

export type CreateMachine = S["CreateBody"];
export const TIER_KEYS = ["small", "medium", "large", "xl"] as const satisfies readonly CreateMachine["tier"][];
export type TierKey = CreateMachine["tier"];
export const OS_KEYS = ["ubuntu-24.04", "ubuntu-22.04", "debian-12", "debian-11"] as const satisfies readonly CreateMachine["os_template"][];
export type OsKey = CreateMachine["os_template"];

export type Tier = Omit<S["TierView"], "key"> & { key: TierKey };
export type OsChoice = Omit<S["OsView"], "key"> & { key: OsKey };
export type CatalogView = S["CatalogView"];
/** How many machines there are of how many that may be; without a limit there is none. */
export interface MachineQuota {
  used: number;
  limit: number | null;
}
export type Catalog = Omit<CatalogView, "tiers" | "os" | "quota"> & { tiers: Tier[]; os: OsChoice[]; quota: MachineQuota };
export type Placement = S["PlacementView"];

export const MACHINE_STATUSES = ["provisioning", "running", "stopped", "paused", "unknown", "deleting", "failed"] as const;
export type MachineStatus = (typeof MACHINE_STATUSES)[number];
export type MachineView = S["MachineView"];
export type Machine = Omit<MachineView, "status"> & { status: MachineStatus };

export const STEP_STATES = ["pending", "running", "done", "failed", "undoing", "undone"] as const;
export type StepState = (typeof STEP_STATES)[number];
export type Step = Omit<S["StepView"], "state"> & { state: StepState };

export const OPERATION_STATES = ["queued", "running", "succeeded", "failed"] as const;
export type OperationState = (typeof OPERATION_STATES)[number];
export type OperationView = S["OperationView"];
export type Operation = Omit<OperationView, "state" | "steps" | "fault"> & {
  state: OperationState;
  steps: Step[];
  fault?: Fault | null;
};
export type PrivateKey = S["PrivateKeyView"];

export type NodeView = S["NodeView"];
export type AddressRow = S["AddressView"];
export type ReconcileReport = S["AddressReconcileView"];

export type TraceSummary = S["TraceRowView"];
export type Span = Omit<S["SpanView"], "attributes"> & { attributes: Record<string, unknown> };
export interface Trace {
  trace_id: string;
  spans: Span[];
}

export interface MachineEvent {
  kind: "created" | "changed" | "deleted";
  vm: Machine;
}
