/** The deployment itself: who is on the bus, how the bus stands, and hosts that join. */
import { body, http } from "./client";
import type { components } from "./schema";

type S = components["schemas"];

export type Deployment = S["DeploymentView"];
export type Instance = S["InstanceView"];
export type Stream = S["StreamView"];
export type Lease = S["LeaseView"];
export type JoinToken = S["JoinTokenView"];

export const deployment = {
  get: async (): Promise<Deployment> => (await body(http.GET("/api/deployment"))).data,
  joinToken: async (): Promise<JoinToken> => (await body(http.POST("/api/hosts/join-tokens", { body: {} }))).data,
};
