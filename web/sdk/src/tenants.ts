import { tenantOf, type Scope } from "./scope.js";
import { path } from "./transport.js";
import type { NimbusAbortable, NimbusTenantScope } from "./types.js";

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

  /** Removes a tenant with everything in it. Asking again is harmless. */
  delete(input: NimbusAbortable & { readonly id: string }): Promise<void> {
    return this.#scope.transport.done({ method: "DELETE", path: path`/api/tenants/${input.id}`, signal: input.signal, repeatable: true });
  }
}

/** A secret, without its value. */
export interface NimbusSecret {
  readonly name: string;
  readonly version: number;
  readonly createdAt: string;
  readonly updatedAt: string;
}

interface Named extends NimbusTenantScope, NimbusAbortable {
  readonly name: string;
}

/** The secrets of a tenant. Sandboxes name them in `process.secrets`; a value is never given back. */
export class NimbusSecrets {
  readonly #scope: Scope;

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  async list(input: NimbusTenantScope & NimbusAbortable = {}): Promise<readonly NimbusSecret[]> {
    const route = path`/api/tenants/${tenantOf(this.#scope, input)}/secrets`;
    return (await this.#scope.transport.json<{ readonly items: readonly NimbusSecret[] }>({ method: "GET", path: route, signal: input.signal })).items;
  }

  /** Sandboxes that are created from now on get this value. */
  async put(input: Named & { readonly value: string }): Promise<NimbusSecret> {
    return this.#scope.transport.json({ method: "PUT", path: this.#path(input), json: { value: input.value }, signal: input.signal });
  }

  async delete(input: Named): Promise<void> {
    await this.#scope.transport.done({ method: "DELETE", path: this.#path(input), signal: input.signal });
  }

  #path(input: Named): string {
    return path`/api/tenants/${tenantOf(this.#scope, input)}/secrets/${input.name}`;
  }
}

/** Storage that outlives sandboxes. */
export interface NimbusVolume {
  readonly name: string;
  /** Where it is, once a sandbox has mounted it. */
  readonly host?: string | null;
  readonly createdAt: string;
  /** The sandboxes that mount it. */
  readonly usedBy: readonly string[];
}

/** The volumes of a tenant. Sandboxes name them in `mounts`. */
export class NimbusVolumes {
  readonly #scope: Scope;

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  async list(input: NimbusTenantScope & NimbusAbortable = {}): Promise<readonly NimbusVolume[]> {
    const route = path`/api/tenants/${tenantOf(this.#scope, input)}/volumes`;
    return (await this.#scope.transport.json<{ readonly items: readonly NimbusVolume[] }>({ method: "GET", path: route, signal: input.signal })).items;
  }

  /** Makes a volume, or answers the one of that name. */
  async ensure(input: Named): Promise<NimbusVolume> {
    return this.#scope.transport.json({ method: "PUT", path: this.#path(input), signal: input.signal });
  }

  /** Removes it with its data; refused while a sandbox mounts it. */
  async delete(input: Named): Promise<void> {
    await this.#scope.transport.done({ method: "DELETE", path: this.#path(input), signal: input.signal });
  }

  #path(input: Named): string {
    return path`/api/tenants/${tenantOf(this.#scope, input)}/volumes/${input.name}`;
  }
}
