import type {
  NimbusCollection,
  NimbusCondition,
  NimbusHealth,
  NimbusLabels,
  NimbusReadiness,
  NimbusRedactedValues,
  NimbusServiceEndpoint,
  NimbusTenantScope,
  NimbusWaitLimits,
  NimbusAbortable,
} from "./common.js";

export type NimbusSandboxProfile = "worker" | "desktop";
export type NimbusSandboxBackendKind = "container" | "krun";
export type NimbusSandboxLifecycleState = "starting" | "ready" | "not_ready" | "stopping" | "stopped" | "failed";

export type NimbusSandboxOwnerSpec =
  | { readonly kind: "service"; readonly serviceName?: string }
  | { readonly kind: "standalone"; readonly displayName?: string };

/** An image by name: `docker.io/library/node:22-alpine`, with a tag, a digest, or both. */
export interface NimbusSandboxOciImageReferenceSource {
  readonly kind: "reference";
  readonly reference: string;
}

export interface NimbusSandboxRootSpec {
  readonly kind: "oci_image";
  readonly source: NimbusSandboxOciImageReferenceSource;
}

export interface NimbusSandboxProcessSpec {
  /** Replaces the image's entrypoint and command. */
  readonly argv?: readonly string[];
  readonly args?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  /** `KEY=value`, added to the image's. */
  readonly env?: readonly string[];
  /** Secrets of the tenant as variables. */
  readonly secrets?: readonly NimbusSecretUse[];
  readonly cwd?: string;
  readonly user?: string;
  readonly terminal?: boolean;
}

/** A secret of the tenant that becomes a variable. */
export interface NimbusSecretUse {
  readonly secret: string;
  readonly variable: string;
}

export interface NimbusSandboxResources {
  readonly vcpus?: number;
  readonly memoryBytes?: number;
  readonly diskBytes?: number;
  readonly logBytes?: number;
  readonly pids?: number;
}

export interface NimbusSandboxPort {
  readonly name?: string;
  readonly guestPort: number;
  readonly protocol: "tcp" | "http" | "https";
  readonly hostPort?: number;
}

export interface NimbusEgressRule {
  readonly name: string;
  readonly protocol: "tcp" | "http" | "https";
  readonly host: string;
  readonly port: number;
  readonly methods?: readonly string[];
  readonly pathPrefixes?: readonly string[];
  readonly allowInternalIps?: boolean;
}

export type NimbusSandboxMount =
  | { readonly kind: "volume"; readonly name: string; readonly target: string; readonly readOnly?: boolean }
  | { readonly kind: "tmpfs"; readonly target: string; readonly sizeBytes?: number };

export type NimbusRestartPolicy =
  | { readonly kind: "never" }
  | { readonly kind: "onFailure"; readonly maxRestarts: number }
  | { readonly kind: "always"; readonly maxRestarts?: number };

interface HealthTiming {
  readonly intervalMs?: number;
  readonly timeoutMs?: number;
  readonly retries?: number;
  readonly startPeriodMs?: number;
  readonly restartOnUnhealthy?: boolean;
}

export type NimbusSandboxHealthCheck = HealthTiming &
  (
    | { readonly kind: "http"; readonly path: string; readonly port?: number; readonly expectStatus?: number }
    | { readonly kind: "tcp"; readonly port: number }
    | { readonly kind: "exec"; readonly argv: readonly string[] }
  );

/** What to run, and how it is closed in. */
export interface NimbusSandboxSpec {
  readonly tenantId?: string;
  readonly owner: NimbusSandboxOwnerSpec;
  readonly backend: NimbusSandboxBackendKind;
  readonly root: NimbusSandboxRootSpec;
  readonly process?: NimbusSandboxProcessSpec;
  readonly resources?: NimbusSandboxResources;
  readonly ports?: readonly NimbusSandboxPort[];
  readonly network?: { readonly egress: { readonly allow: readonly NimbusEgressRule[] } };
  readonly mounts?: readonly NimbusSandboxMount[];
  readonly lifecycle?: { readonly restartPolicy?: NimbusRestartPolicy; readonly stopTimeoutMs?: number };
  readonly health?: NimbusSandboxHealthCheck;
  /** The sandbox stops this long after its start: 1 s to 24 h. */
  readonly ttlMs?: number;
  /** It stops after this long without a command, a connection or an open session. */
  readonly idleTimeoutMs?: number;
  readonly readOnlyRoot?: boolean;
}

export type NimbusSandboxRootResponse =
  | NimbusSandboxRootSpec
  | { readonly kind: "redacted"; readonly redacted: true; readonly reason: string };

export interface NimbusSandboxProcessResponse {
  readonly argv?: NimbusRedactedValues;
  readonly environment?: NimbusRedactedValues;
  readonly entrypoint?: NimbusRedactedValues;
  readonly command?: NimbusRedactedValues;
  readonly secrets?: readonly NimbusSecretUse[];
  readonly cwd?: string;
  readonly user?: string;
  readonly terminal?: boolean;
}

/** A spec as it is given back: without arguments and environment. */
export interface NimbusSandboxSpecResponse extends Omit<NimbusSandboxSpec, "process" | "root"> {
  readonly root: NimbusSandboxRootResponse;
  readonly process?: NimbusSandboxProcessResponse;
}

export interface NimbusSandboxStatus {
  readonly lifecycleState: NimbusSandboxLifecycleState;
  readonly readiness: NimbusReadiness;
  readonly health: NimbusHealth;
  readonly backend?: NimbusSandboxBackendKind;
  readonly endpoints: readonly NimbusServiceEndpoint[];
  readonly exitCode?: number | null;
  readonly expiresAt?: string | null;
  readonly imageDigest?: string | null;
  /** Whether it came from the warm pool. */
  readonly start?: "warm" | "cold" | null;
  /** From the request to the running process. */
  readonly startedAfterMs?: number | null;
  readonly outOfMemory?: boolean;
  readonly host?: string | null;
  readonly restartCount?: number;
  readonly conditions: readonly NimbusCondition[];
}

export interface NimbusSandboxResource {
  readonly metadata: {
    readonly tenantId: string;
    readonly id: string;
    readonly generation: number;
    readonly resourceVersion: string;
    readonly createdAt: string;
    readonly updatedAt: string;
    readonly labels: NimbusLabels;
  };
  readonly spec: { readonly profile: NimbusSandboxProfile; readonly sandbox: NimbusSandboxSpecResponse };
  readonly status: NimbusSandboxStatus;
}

export type NimbusSandboxCollection = NimbusCollection<NimbusSandboxResource>;

export interface NimbusSandboxCreateRequest extends NimbusTenantScope, NimbusAbortable {
  readonly profile: NimbusSandboxProfile;
  readonly spec: NimbusSandboxSpec;
  readonly labels?: NimbusLabels | undefined;
}

export interface NimbusSandboxSelector extends NimbusTenantScope, NimbusAbortable {
  readonly id: string;
}

export interface NimbusSandboxListRequest extends NimbusTenantScope, NimbusAbortable {
  readonly limit?: number | undefined;
  readonly pageToken?: string | undefined;
  readonly status?: NimbusSandboxLifecycleState | undefined;
  readonly labelKey?: string | undefined;
  readonly labelValue?: string | undefined;
}

export type NimbusSandboxWaitCondition = "ready" | "healthy" | "stopped";

export interface NimbusSandboxWaitRequest extends NimbusTenantScope, NimbusWaitLimits {
  readonly id: string;
  readonly until: NimbusSandboxWaitCondition;
}

export interface NimbusSandboxDeleteRequest extends NimbusSandboxSelector {
  /** Also when it runs. */
  readonly force?: boolean | undefined;
}

/** More time: both count from now. */
export interface NimbusSandboxExtendRequest extends NimbusAbortable {
  readonly ttlMs?: number | undefined;
  readonly idleTimeoutMs?: number | undefined;
}

/** A link under which a port of the sandbox can be opened in a browser. */
export interface NimbusPreviewLink {
  readonly url: string;
  readonly expiresAt: string;
}

export interface NimbusPreviewRequest extends NimbusAbortable {
  readonly port: number;
  readonly ttlMs?: number | undefined;
}
