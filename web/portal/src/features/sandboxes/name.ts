import type { Sandbox } from "~/api/workloads";

const ULID_LENGTH = 26;

/** What stands before the unique part of an id: `batch-job-01jz…` is `batch-job`. */
export function slugOf(id: string): string {
  const slug = id.slice(0, -(ULID_LENGTH + 1));
  return /-[0-9a-z]{26}$/.test(id) && slug !== "" ? slug : id;
}

/** What people call a sandbox: the name it was given, else the readable part of its id. */
export function sandboxName(sandbox: Pick<Sandbox, "metadata" | "spec">): string {
  return sandbox.spec.sandbox.owner?.displayName ?? slugOf(sandbox.metadata.id);
}

/** The unique part, short enough for a list. */
export function shortTail(id: string): string {
  return `…${id.slice(-6)}`;
}

/** An image as people write it: `docker.io/library/` is understood. */
export function imageName(reference: string): string {
  const [name = reference, digest] = reference.split("@", 2);
  const short = name.replace(/^docker\.io\/(library\/)?/, "");
  return digest === undefined ? short : `${short}@${digest.slice(0, 15)}…`;
}

export function imageOf(sandbox: Sandbox): string | null {
  return sandbox.spec.sandbox.root?.source?.reference ?? null;
}
