import type { NimbusAbortable, NimbusCollection, NimbusCondition, NimbusTenantScope } from "./common.js";
import type { NimbusBuiltInProviderId } from "./service.js";
import type { NimbusSandboxBackendKind, NimbusSandboxProfile } from "./sandbox.js";

/** What a session is a lease on. */
export type NimbusSessionTarget = { readonly service: { readonly name: string } } | { readonly sandbox: { readonly id: string } };

export type NimbusSessionChannel = "cdp" | "page" | "stdio" | "files";

/** The target as it was when the session was opened. */
export type NimbusSessionTargetSnapshot =
  | {
      readonly service: {
        readonly name: string;
        readonly generation: number;
        readonly backend: "sandbox" | "builtIn" | "external";
        readonly provider?: NimbusBuiltInProviderId;
        readonly sandboxId?: string;
      };
    }
  | {
      readonly sandbox: {
        readonly id: string;
        readonly generation: number;
        readonly profile: NimbusSandboxProfile;
        readonly backend: NimbusSandboxBackendKind;
      };
    };

export type NimbusSessionLifecycleState = "open" | "closed" | "expired";

export interface NimbusSessionResource {
  readonly metadata: {
    readonly tenantId: string;
    readonly id: string;
    readonly generation: number;
    readonly resourceVersion: string;
    readonly createdAt: string;
    readonly updatedAt: string;
  };
  readonly spec: {
    readonly target: NimbusSessionTarget;
    readonly targetSnapshot: NimbusSessionTargetSnapshot;
    readonly channels: readonly NimbusSessionChannel[];
    readonly expiresAt: string;
  };
  readonly status: {
    readonly lifecycleState: NimbusSessionLifecycleState;
    readonly expiresAt: string;
    readonly closedAt?: string | null;
    readonly closeReason?: string | null;
    readonly conditions: readonly NimbusCondition[];
  };
}

export type NimbusSessionCollection = NimbusCollection<NimbusSessionResource>;

export interface NimbusSessionOpenRequest extends NimbusTenantScope, NimbusAbortable {
  readonly target: NimbusSessionTarget;
  readonly channels: readonly NimbusSessionChannel[];
  /** Default 15 minutes; more than an hour is cut to an hour. */
  readonly requestedTtlMs?: number | undefined;
}

export interface NimbusSessionSelector extends NimbusTenantScope, NimbusAbortable {
  readonly id: string;
}

export interface NimbusSessionListRequest extends NimbusTenantScope, NimbusAbortable {
  readonly limit?: number | undefined;
  readonly pageToken?: string | undefined;
  readonly state?: NimbusSessionLifecycleState | undefined;
}

export interface NimbusSessionCloseRequest extends NimbusSessionSelector {
  readonly reason?: string | undefined;
}

/** Lets one WebSocket be opened without a credential, once, within a minute. */
export interface NimbusSessionTicket {
  readonly ticket: string;
  readonly expiresAt?: string;
}
