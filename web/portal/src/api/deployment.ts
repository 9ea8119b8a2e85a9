/** The deployment itself: who is on the bus, and how the bus stands. */
import { ApiError, ask } from "./client";

export interface Instance {
  service: string;
  id: string;
  version: string;
  host: string | null;
  pid: number | null;
  started_at: string;
  requests: number;
  errors: number;
}

export interface Stream {
  name: string;
  messages: number;
  bytes: number;
  replicas: number;
  leader: string | null;
  behind: string[];
  /** What its slowest consumer has not got yet. */
  lag: number;
  unacknowledged: number;
}

export interface Lease {
  name: string;
  holder: string;
  renewed_at: string | null;
}

export interface Deployment {
  version: string;
  healthy: boolean;
  problems: string[];
  instances: Instance[];
  streams: Stream[];
  leases: Lease[];
}

export interface JoinToken {
  token: string;
  expires_in_seconds: number;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
const text = (value: unknown): string => (typeof value === "string" ? value : "");
const maybe = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);
const number = (value: unknown): number => (typeof value === "number" ? value : 0);
const list = <T>(value: unknown, read: (item: Record<string, unknown>) => T): T[] => (Array.isArray(value) ? value.filter(isRecord).map(read) : []);
const texts = (value: unknown): string[] => (Array.isArray(value) ? value.map(text) : []);

function toDeployment(answer: unknown): Deployment {
  const value = isRecord(answer) ? answer["data"] : null;
  if (!isRecord(value) || !Array.isArray(value["instances"])) throw new ApiError(0, "The server's answer is no deployment that this page can read.", null);
  return {
    version: text(value["version"]),
    healthy: value["healthy"] === true,
    problems: texts(value["problems"]),
    instances: list(value["instances"], (item) => ({
      service: text(item["service"]),
      id: text(item["id"]),
      version: text(item["version"]),
      host: maybe(item["host"]),
      pid: typeof item["pid"] === "number" ? item["pid"] : null,
      started_at: text(item["started_at"]),
      requests: number(item["requests"]),
      errors: number(item["errors"]),
    })),
    streams: list(value["streams"], (item) => ({
      name: text(item["name"]),
      messages: number(item["messages"]),
      bytes: number(item["bytes"]),
      replicas: number(item["replicas"]),
      leader: maybe(item["leader"]),
      behind: texts(item["behind"]),
      lag: number(item["lag"]),
      unacknowledged: number(item["unacknowledged"]),
    })),
    leases: list(value["leases"], (item) => ({ name: text(item["name"]), holder: text(item["holder"]), renewed_at: maybe(item["renewed_at"]) })),
  };
}

function toJoinToken(answer: unknown): JoinToken {
  const value = isRecord(answer) ? answer["data"] : null;
  if (!isRecord(value) || typeof value["token"] !== "string") throw new ApiError(0, "The server's answer is no token that this page can read.", null);
  return { token: value["token"], expires_in_seconds: number(value["expires_in_seconds"]) };
}

export const deployment = {
  get: () => ask("/api/deployment", toDeployment),
  joinToken: () => ask("/api/hosts/join-tokens", toJoinToken, { method: "POST", body: {} }),
};
