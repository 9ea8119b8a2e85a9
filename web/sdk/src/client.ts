import "./disposable.js";
import { NimbusSandboxes } from "./sandboxes.js";
import type { Scope } from "./scope.js";
import { NimbusServices } from "./services.js";
import { NimbusSessions } from "./sessions.js";
import { NimbusSecrets, NimbusTenants, NimbusVolumes } from "./tenants.js";
import { Transport, type TransportOptions } from "./transport.js";

/** Whatever is left out is looked for in the environment and in the credential file. */
export interface NimbusClientOptions extends TransportOptions {
  /** The tenant of every call that does not name one. */
  readonly tenantId?: string | undefined;
  /** For runtimes that have no `WebSocket`; `null` uses plain HTTP even where there is one. */
  readonly webSocket?: typeof WebSocket | null | undefined;
}

/** A client of a Nimbus server. Making one does no I/O: endpoint and credential are found with the first request. */
export class Nimbus {
  readonly tenantId: string | undefined;
  readonly tenants: NimbusTenants;
  readonly services: NimbusServices;
  readonly sandboxes: NimbusSandboxes;
  readonly sessions: NimbusSessions;
  readonly secrets: NimbusSecrets;
  readonly volumes: NimbusVolumes;
  readonly #transport: Transport;

  constructor(options: NimbusClientOptions = {}) {
    this.#transport = new Transport(options);
    this.tenantId = options.tenantId;
    const scope: Scope = {
      transport: this.#transport,
      tenantId: options.tenantId,
      webSocket: options.webSocket === undefined ? builtInWebSocket() : (options.webSocket ?? undefined),
    };
    this.tenants = new NimbusTenants(scope);
    this.services = new NimbusServices(scope);
    this.sandboxes = new NimbusSandboxes(scope);
    this.sessions = new NimbusSessions(scope);
    this.secrets = new NimbusSecrets(scope);
    this.volumes = new NimbusVolumes(scope);
  }

  /** A client whose endpoint and credential have been found already; throws when one is missing. */
  static async defaultClient(options: NimbusClientOptions = {}): Promise<Nimbus> {
    const client = new Nimbus(options);
    await client.#transport.target();
    return client;
  }
}

function builtInWebSocket(): typeof WebSocket | undefined {
  // Node has one since version 22.
  return (globalThis as { WebSocket?: typeof WebSocket }).WebSocket;
}
