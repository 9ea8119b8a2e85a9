import type { Grant } from "~/api/workloads";

export interface Bundle {
  key: "look" | "sandboxes" | "sessions" | "run-services" | "services" | "force";
  label: string;
  short: string;
  text: string;
  actions: readonly string[];
}

/** Actions that belong together, as people think of them. Each action is in one bundle. */
export const BUNDLES: readonly Bundle[] = [
  {
    key: "look",
    label: "Look",
    short: "look",
    text: "List and read sandboxes, services and sessions.",
    actions: ["sandboxes.list", "sandboxes.get", "services.list", "services.inspect", "sessions.list", "sessions.get"],
  },
  { key: "sandboxes", label: "Use sandboxes", short: "sandboxes", text: "Create and stop them, run commands in them.", actions: ["sandboxes.create", "sandboxes.stop", "sandboxes.exec"] },
  { key: "sessions", label: "Open sessions", short: "sessions", text: "Terminals, files and browsers of what runs.", actions: ["sessions.open", "sessions.close"] },
  { key: "run-services", label: "Run services", short: "run services", text: "Start, stop and restart them.", actions: ["services.start", "services.stop", "services.restart"] },
  { key: "services", label: "Change services", short: "change services", text: "Create, change and delete definitions.", actions: ["services.create", "services.update", "services.delete"] },
  { key: "force", label: "Delete by force", short: "force", text: "Delete a service that runs, with its sessions.", actions: ["services.forceDelete"] },
];

export function grantOf(chosen: readonly Bundle["key"][], sandboxes: "own" | "all", services: readonly string[]): Grant {
  const actions = BUNDLES.filter((bundle) => chosen.includes(bundle.key)).flatMap((bundle) => bundle.actions);
  // Whoever may use sandboxes must be able to find them again.
  const more = chosen.includes("sandboxes") && !chosen.includes("look") ? ["sandboxes.list", "sandboxes.get"] : [];
  return { actions: [...actions, ...more], sandboxes, ...(services.length === 0 ? {} : { services: [...services] }) };
}

/** Which bundles a grant covers, and what it grants beside them. */
export function bundlesOf(grant: Grant): { bundles: readonly Bundle[]; others: string[] } {
  if (grant.actions.includes("*")) return { bundles: BUNDLES, others: [] };
  const bundles = BUNDLES.filter((bundle) => bundle.actions.every((action) => grant.actions.includes(action)));
  const covered = new Set(bundles.flatMap((bundle) => bundle.actions));
  return { bundles, others: grant.actions.filter((action) => !covered.has(action)) };
}
