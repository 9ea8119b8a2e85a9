import { NimbusInputError } from "./errors.js";
import type { Transport } from "./transport.js";

/** What the parts of a client share. */
export interface Scope {
  readonly transport: Transport;
  readonly tenantId: string | undefined;
  /** Constructor of WebSockets; `undefined` where there is none. */
  readonly webSocket: typeof WebSocket | undefined;
}

/** The tenant of a call, or an error that says where to name one. */
export function tenantOf(scope: Scope, input: { readonly tenantId?: string | undefined } | undefined): string {
  const tenant = input?.tenantId ?? scope.tenantId;
  if (tenant === undefined || tenant === "") {
    throw new NimbusInputError("no tenant: pass `tenantId` to this call or to the client");
  }
  return tenant;
}
