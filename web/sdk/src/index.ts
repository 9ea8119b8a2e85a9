/** Client of a Nimbus server: services, sandboxes, sessions. */
export { Nimbus, type NimbusClientOptions } from "./client.js";
export type { NimbusCredential } from "./discovery.js";
export {
  decodeNimbusErrorEnvelope,
  isNimbusCommitError,
  NimbusApiError,
  NimbusAuthError,
  NimbusCapExceededError,
  NimbusCommitError,
  NimbusCommitterFullError,
  NimbusConflictError,
  NimbusDiscoveryError,
  NimbusError,
  NimbusInputError,
  NimbusNotFoundError,
  NimbusOutOfRetentionError,
  NimbusOverloadedError,
  NimbusPreconditionFailedError,
  NimbusRateLimitedError,
  NimbusRejectedBeforeExecutionError,
  NimbusTransportError,
  NimbusWaitFailedError,
  NimbusWaitTimeoutError,
  type NimbusErrorDetail,
  type NimbusErrorFallback,
  type NimbusErrorFields,
  type NimbusRemediation,
  type NimbusRetryability,
  type NimbusSeverity,
} from "./errors.js";
export type { NimbusBytes } from "./bytes.js";
export {
  NimbusCommand,
  type NimbusAttachRequest,
  type NimbusCommandInfo,
  type NimbusExecEvent,
  type NimbusExecRequest,
  type NimbusExecResult,
  type NimbusExit,
} from "./exec.js";
export {
  NimbusFiles,
  type NimbusFileContent,
  type NimbusFileEntry,
  type NimbusFileReadOptions,
  type NimbusFileWriteOptions,
} from "./files.js";
export { NimbusList } from "./list.js";
export { NimbusPage, type NimbusPageEvent } from "./page.js";
export { NimbusSandbox, NimbusSandboxes } from "./sandboxes.js";
export { NimbusServices } from "./services.js";
export { NimbusSession, NimbusSessions } from "./sessions.js";
export { NimbusStdio, type NimbusStdioEnd, type NimbusStdioRequest } from "./stdio.js";
export { NimbusSecrets, NimbusTenants, NimbusVolumes, type NimbusSecret, type NimbusTenant, type NimbusVolume } from "./tenants.js";
export type * from "./types.js";
