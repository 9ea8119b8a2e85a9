import type { Scope } from "./scope.js";
import { path } from "./transport.js";
import type { NimbusAbortable } from "./types.js";

export interface NimbusTenant {
  readonly id: string;
  readonly createdAt?: string;
}

/** The tenants that the caller may reach. */
export class NimbusTenants {
  readonly #scope: Scope;

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  create(input: NimbusAbortable & { readonly id: string }): Promise<NimbusTenant> {
    const { id, signal } = input;
    return this.#scope.transport.json({ method: "POST", path: "/api/tenants", json: { id }, signal, creates: true });
  }

  get(input: NimbusAbortable & { readonly id: string }): Promise<NimbusTenant> {
    return this.#scope.transport.json({ method: "GET", path: path`/api/tenants/${input.id}`, signal: input.signal });
  }

  /** The ids, sorted. */
  async list(options: NimbusAbortable = {}): Promise<readonly string[]> {
    const answer = await this.#scope.transport.json<{ readonly tenants: readonly string[] }>({ method: "GET", path: "/api/tenants", signal: options.signal });
    return answer.tenants;
  }

  /** Removes a tenant with everything in it. */
  delete(input: NimbusAbortable & { readonly id: string }): Promise<void> {
    return this.#scope.transport.done({ method: "DELETE", path: path`/api/tenants/${input.id}`, signal: input.signal });
  }
}
