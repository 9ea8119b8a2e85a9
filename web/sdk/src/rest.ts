import { path, Transport, type Call, type Query } from "./transport.js";
import type { NimbusTenant } from "./tenants.js";

/** One request of a route that has no method of its own. */
export interface NimbusRestRequest {
  readonly query?: Query | undefined;
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The HTTP interface itself. What authorises the caller goes into `headers`. */
export class NimbusRestClient {
  readonly #transport: Transport;

  constructor(baseUrl: string, options: { readonly fetch?: typeof globalThis.fetch; readonly headers?: Readonly<Record<string, string>> } = {}) {
    // Without a credential of its own it sends none: routes like `/health` need none.
    this.#transport = new Transport({ ...options, endpoint: baseUrl, headers: { ...options.headers } }, { anonymous: true });
  }

  /** Sends a request and answers the JSON of the reply; failures are thrown as `NimbusApiError`. */
  request<T = unknown>(method: Call["method"], route: string, options: NimbusRestRequest = {}): Promise<T> {
    const { query, body, headers, signal } = options;
    return this.#transport.json<T>({
      method,
      path: route,
      json: body,
      signal,
      ...(query === undefined ? {} : { query }),
      ...(headers === undefined ? {} : { headers }),
    });
  }

  health<T = unknown>(): Promise<T> {
    return this.request<T>("GET", "/health");
  }

  createTenant(id: string): Promise<NimbusTenant> {
    return this.request("POST", "/api/tenants", { body: { id } });
  }

  async listTenants(): Promise<readonly string[]> {
    return (await this.request<{ readonly tenants: readonly string[] }>("GET", "/api/tenants")).tenants;
  }

  getTenant(id: string): Promise<NimbusTenant> {
    return this.request("GET", path`/api/tenants/${id}`);
  }

  async deleteTenant(id: string): Promise<void> {
    await this.#transport.done({ method: "DELETE", path: path`/api/tenants/${id}` });
  }
}
