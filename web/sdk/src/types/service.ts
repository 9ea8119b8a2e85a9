import type {
  NimbusAbortable,
  NimbusCollection,
  NimbusCondition,
  NimbusHealth,
  NimbusLabels,
  NimbusReadiness,
  NimbusServiceEndpoint,
  NimbusTenantScope,
  NimbusWaitLimits,
} from "./common.js";
import type { NimbusSandboxBackendKind, NimbusSandboxLifecycleState, NimbusSandboxSpec, NimbusSandboxSpecResponse } from "./sandbox.js";

export type NimbusBuiltInProviderId = "loadBalancer" | "serviceDiscovery" | "browser" | "modelGateway";

export interface NimbusExternalAuthPolicy {
  readonly kind: "none";
}

export interface NimbusExternalEndpointPolicy {
  readonly url: string;
}

export interface NimbusHealthCheckPolicy {
  readonly kind: "http";
  readonly path: string;
}

/** What a service stands for. */
export type NimbusServiceBackendSpec =
  | { readonly kind: "sandbox"; readonly sandbox: NimbusSandboxSpec }
  | { readonly kind: "builtIn"; readonly provider: NimbusBuiltInProviderId }
  | {
      readonly kind: "external";
      readonly endpoint: NimbusExternalEndpointPolicy;
      readonly auth: NimbusExternalAuthPolicy;
      readonly health: NimbusHealthCheckPolicy;
    };

export type NimbusServiceBackendResponse =
  | { readonly kind: "sandbox"; readonly sandbox: NimbusSandboxSpecResponse }
  | Exclude<NimbusServiceBackendSpec, { kind: "sandbox" }>
  | { readonly kind: "redacted"; readonly backend: string; readonly redacted: true; readonly reason: string };

export type NimbusServiceLifecycleState = NimbusSandboxLifecycleState | "declared";

export interface NimbusServiceStatus {
  readonly backend: "sandbox" | "builtIn" | "external";
  readonly lifecycleState: NimbusServiceLifecycleState;
  readonly readiness: NimbusReadiness;
  readonly health: NimbusHealth;
  readonly sandboxId?: string | null;
  readonly restartCount?: number;
  readonly observedGeneration?: number;
  readonly endpoints?: readonly NimbusServiceEndpoint[];
  readonly conditions: readonly NimbusCondition[];
}

export interface NimbusServiceDefinition {
  readonly metadata: {
    readonly tenantId: string;
    readonly name: string;
    readonly uid?: string;
    readonly generation: number;
    readonly resourceVersion: string;
    readonly createdAt: string;
    readonly updatedAt: string;
    readonly labels: NimbusLabels;
    readonly source: "dynamic" | "staticCatalog";
  };
  readonly spec: { readonly backend: NimbusServiceBackendResponse };
  readonly status: NimbusServiceStatus;
}

/** A definition with its state repeated at the top. */
export interface NimbusService extends NimbusServiceDefinition {
  readonly name?: string;
  readonly tenantId?: string;
  readonly state?: NimbusServiceLifecycleState;
  readonly lifecycleState?: NimbusServiceLifecycleState;
  readonly readiness?: NimbusReadiness;
  readonly health?: NimbusHealth;
  readonly sandboxId?: string | null;
  /** What isolates the running sandbox; absent when nothing runs. */
  readonly backend?: NimbusSandboxBackendKind | null;
  readonly endpoints?: readonly NimbusServiceEndpoint[];
  readonly [more: string]: unknown;
}

export type NimbusServiceDefinitionCollection = NimbusCollection<NimbusServiceDefinition>;

export interface NimbusServiceSelector extends NimbusTenantScope, NimbusAbortable {
  readonly name: string;
}

export interface NimbusServiceCreateRequest extends NimbusServiceSelector {
  readonly backend: NimbusServiceBackendSpec;
  readonly labels?: NimbusLabels | undefined;
}

export interface NimbusServiceUpdateRequest extends NimbusServiceCreateRequest {
  /** The generation that was read; a stale one fails with `op.precondition_failed`. */
  readonly ifMatchGeneration: number;
}

export interface NimbusServiceDeleteRequest extends NimbusServiceSelector {
  readonly ifMatchGeneration: number;
  /** Also when it runs, or has open sessions. */
  readonly force?: boolean | undefined;
}

export interface NimbusServiceListRequest extends NimbusTenantScope, NimbusAbortable {
  readonly limit?: number | undefined;
  readonly pageToken?: string | undefined;
  readonly labelKey?: string | undefined;
  readonly labelValue?: string | undefined;
}

export type NimbusServiceActivationWaitCondition = "ready" | "healthy";
export type NimbusServiceStopWaitCondition = "stopped";
export type NimbusServiceWaitCondition = NimbusServiceActivationWaitCondition | NimbusServiceStopWaitCondition;

export interface NimbusServiceLifecycleRequest extends NimbusTenantScope, NimbusWaitLimits {
  readonly name: string;
  readonly waitUntil?: NimbusServiceActivationWaitCondition | undefined;
}

export type NimbusServiceStartRequest = NimbusServiceLifecycleRequest;

export interface NimbusServiceStopRequest extends NimbusTenantScope, NimbusWaitLimits {
  readonly name: string;
  readonly waitUntil?: NimbusServiceStopWaitCondition | undefined;
}

export interface NimbusServiceWaitRequest extends NimbusTenantScope, NimbusWaitLimits {
  readonly name: string;
  readonly until: NimbusServiceWaitCondition;
}
