import path from "node:path";
import { fileURLToPath } from "node:url";

/** The checkout. */
export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../..");

/** The program under test. */
export const BINARY = path.resolve(process.env["NIMBUS_BIN"] ?? path.join(ROOT, "target/debug/nimbus"));

/** Logs of the servers and what failed. */
export const OUTPUT = path.join(ROOT, "tests/output/e2e");

/** What the pages look like. */
export const SCREENSHOTS = path.join(ROOT, "tests/output/screenshots");
