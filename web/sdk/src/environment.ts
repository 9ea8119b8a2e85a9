/** What of Node is used when it is there. Nothing is imported, so that bundlers for browsers find nothing to complain about. */
interface NodeProcess {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly versions?: { readonly node?: string };
  getBuiltinModule?(id: string): unknown;
}

interface NodeFiles {
  readFile(path: string, encoding: "utf8"): Promise<string>;
}

function node(): NodeProcess | undefined {
  return (globalThis as { process?: NodeProcess }).process;
}

/** An environment variable; an empty one counts as unset. */
export function variable(name: string): string | undefined {
  const value = node()?.env[name]?.trim();
  return value === "" ? undefined : value;
}

/** Whether this is Node rather than a browser. */
export function isNode(): boolean {
  return node()?.versions?.node !== undefined;
}

/** The text of a file, or `undefined` when there is none. */
export async function readText(path: string): Promise<string | undefined> {
  const files = node()?.getBuiltinModule?.("node:fs/promises") as NodeFiles | undefined;
  if (files === undefined) return undefined;
  try {
    return await files.readFile(path, "utf8");
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
}
