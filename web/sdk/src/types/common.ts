/** What a resource says about one side of its state. */
export interface NimbusCondition {
  readonly type: string;
  readonly status: "True" | "False" | "Unknown";
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration: number;
  readonly lastTransitionTime: string;
}

/** Values that are not given back; only how many there are. */
export interface NimbusRedactedValues {
  readonly redacted: true;
  readonly valueCount: number;
}

/** An address that something published listens on. */
export interface NimbusServiceEndpoint {
  readonly name: string;
  readonly protocol: "tcp" | "http" | "https";
  readonly host: string;
  readonly port: number;
}

/** Key and value pairs to find things by. */
export type NimbusLabels = Readonly<Record<string, string>>;

/** One page of a list. */
export interface NimbusCollection<T> {
  readonly metadata: {
    readonly tenantId: string;
    readonly resourceVersion: string;
    readonly limit: number;
    /** There is more; the token of the next page. */
    readonly nextPageToken?: string;
    readonly remainingCount: number;
  };
  readonly items: readonly T[];
}

/** Every input may name the tenant; else it is the client's. */
export interface NimbusTenantScope {
  readonly tenantId?: string | undefined;
}

/** Ends a call early. What the server did by then is done. */
export interface NimbusAbortable {
  readonly signal?: AbortSignal | undefined;
}

/** How long to wait, and how often to look. Defaults: 30 s, every 250 ms. */
export interface NimbusWaitLimits extends NimbusAbortable {
  readonly timeoutMs?: number | undefined;
  readonly intervalMs?: number | undefined;
}

/** Which lines of a log. */
export interface NimbusLogOptions extends NimbusTenantScope, NimbusAbortable {
  /** How many of the last lines; default 200. */
  readonly tail?: number | undefined;
  /** Only lines from this time on, RFC 3339. */
  readonly since?: string | undefined;
  /** Wait for more lines until the workload ends. */
  readonly follow?: boolean | undefined;
}

/** One line of a log. */
export interface NimbusLogLine {
  readonly ts: string;
  readonly stream: "stdout" | "stderr";
  readonly data: string;
  /** Given when `data` is not text. */
  readonly encoding?: "base64";
}

/** Readiness, health and lifecycle of what runs. */
export type NimbusReadiness = "ready" | "not_ready" | "stopped" | "failed" | "unknown";
export type NimbusHealth = "healthy" | "unhealthy" | "unknown";
