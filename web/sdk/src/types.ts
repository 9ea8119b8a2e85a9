export type * from "./types/common.js";
export type * from "./types/sandbox.js";
export type * from "./types/service.js";
export type * from "./types/session.js";
