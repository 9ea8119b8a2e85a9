import { useQueryClient } from "@tanstack/react-query";
import { Link, useLocation } from "@tanstack/react-router";
import type { Job } from "~/api/gpu";
import { keys } from "~/api/queries";
import type { Machine, Operation } from "~/api/types";
import type { Sandbox } from "~/api/workloads";
import { imageName, sandboxName, slugOf } from "~/features/sandboxes/name";
import { shortId } from "~/ui/format";
import { ADMIN_NAV, MAIN_NAV, type Section } from "./nav";

const GPU_PAGES: Record<string, string> = { jobs: "Jobs", workers: "Workers", usage: "Usage" };

function jobName(job: Job | undefined, id: string): string {
  return job === undefined ? shortId(id) : imageName(job.image);
}

/** Where we are, from the path and what the cache knows about it. */
export function Breadcrumb() {
  const { pathname } = useLocation();
  const client = useQueryClient();
  const [section = "", id, under] = pathname.split("/").filter((part) => part !== "");
  const top = [...MAIN_NAV, ...ADMIN_NAV].find((item) => item.to === `/${section}` || item.to === `/${section}/${id ?? ""}`);

  const parent: { to: Section | "/gpu/jobs"; label: string } | null =
    section === "operations"
      ? { to: "/machines", label: "Machines" }
      : section === "gpu" && under !== undefined
        ? { to: "/gpu/jobs", label: "GPU jobs" }
        : top
          ? { to: top.to, label: top.label }
          : null;
  if (parent === null) return null;

  let leaf: string | null = null;
  if (id !== undefined) {
    if (section === "machines") {
      leaf =
        id === "new"
          ? "New"
          : (client.getQueryData<Machine>(keys.machine(id))?.hostname ??
            client.getQueryData<Machine[]>(keys.machines)?.find((machine) => machine.ID === id)?.hostname ??
            shortId(id));
    } else if (section === "operations") {
      leaf = client.getQueryData<Operation>(keys.operation(id))?.target_label ?? shortId(id);
    } else if (section === "sandboxes") {
      const known = client.getQueriesData<Sandbox>({ queryKey: ["sandbox"] }).find(([key]) => key[2] === id)?.[1];
      leaf = id === "new" ? "New" : known ? sandboxName(known) : slugOf(id);
    } else if (section === "gpu") {
      const page = GPU_PAGES[id] ?? null;
      leaf = under === undefined ? page : under === "new" ? "Submit job" : jobName(client.getQueryData<Job>(keys.gpuJob(under)), under);
    } else if (section === "settings") {
      leaf = "GPU";
    } else if (section === "services") {
      leaf = id === "new" ? "New" : decodeURIComponent(id);
    } else {
      leaf = shortId(id);
    }
  }

  return (
    <nav aria-label="Breadcrumb" className="min-w-0 text-sm">
      <ol className="flex min-w-0 items-center gap-2">
        <li className="shrink-0">
          {leaf === null ? (
            <span className="font-medium">{parent.label}</span>
          ) : (
            <Link to={parent.to} className="rounded-sm text-muted hover:text-fg">
              {parent.label}
            </Link>
          )}
        </li>
        {leaf !== null ? (
          <li className="flex min-w-0 items-center gap-2">
            <span aria-hidden="true" className="text-faint">
              /
            </span>
            <span aria-current="page" className="truncate font-medium">
              {leaf}
            </span>
          </li>
        ) : null}
      </ol>
    </nav>
  );
}
