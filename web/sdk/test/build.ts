import { execFileSync } from "node:child_process";
import path from "node:path";

/** The folder of the SDK, and of the checkout. */
export const SDK = path.resolve(import.meta.dirname, "..");
export const ROOT = path.resolve(SDK, "../..");

/** Builds `dist` once before the tests: examples import the package as its users do. */
export default function setup(): void {
  execFileSync("npm", ["run", "build", "--silent"], { cwd: SDK, stdio: "inherit" });
}
