import { useQuery, useQueryClient } from "@tanstack/react-query";
import { isFinal, type Job, type Worker } from "~/api/gpu";
import { useStreamState } from "~/api/events";
import { keys, queries } from "~/api/queries";
import { StatusDot } from "~/ui/status";
import { TabLinks } from "~/ui/tab-links";
import { JOB, WORKER } from "./rules";

export function JobDot({ job }: { job: Job }) {
  const { label, tone, moving } = JOB[job.state];
  return (
    <StatusDot tone={tone} moving={moving}>
      {label}
    </StatusDot>
  );
}

export function WorkerDot({ worker }: { worker: Worker }) {
  const look = WORKER[worker.state];
  if (worker.state === "online" && worker.standing !== "active") {
    return <StatusDot tone="wait">{worker.standing === "paused" ? "Paused" : "Draining"}</StatusDot>;
  }
  if (worker.state === "online" && worker.trouble !== null) return <StatusDot tone="bad">In trouble</StatusDot>;
  return (
    <StatusDot tone={look.tone} moving={look.moving}>
      {look.label}
    </StatusDot>
  );
}

/** The pages about GPUs. */
export function GpuTabs() {
  const jobs = useQuery(queries.gpuJobs());
  const workers = useQuery(queries.gpuWorkers());
  return (
    <TabLinks
      label="GPU pages"
      tabs={[
        { to: "/gpu", label: "Inference" },
        { to: "/gpu/jobs", label: "Jobs", count: jobs.data?.filter((job) => !isFinal(job.state)).length },
        { to: "/gpu/workers", label: "Workers", count: workers.data?.length },
        { to: "/gpu/usage", label: "Usage" },
      ]}
    />
  );
}

const LIVE_MS = 15_000;
/** How often to look at what is on its way: events do not tell how far an image is. */
export const MOVING_MS = 3_000;

/** How often to look at the rest, of which events tell while they come. */
export function useGpuPoll(): number {
  return useStreamState() === "live" ? LIVE_MS : MOVING_MS;
}

/** Whether the viewer is an administrator, and who they are. */
export function useViewer(): { admin: boolean; id: string } {
  const { data: me } = useQuery(queries.me());
  return { admin: me?.is_admin ?? false, id: me?.id ?? "" };
}

/** Puts a job that an answer brought where the pages look for it. */
export function useKeepJob(): (job: Job) => void {
  const client = useQueryClient();
  return (job) => {
    client.setQueryData(keys.gpuJob(job.id), job);
    client.setQueryData<Job[]>(keys.gpuJobs, (list) =>
      list === undefined ? undefined : list.some((item) => item.id === job.id) ? list.map((item) => (item.id === job.id ? job : item)) : [job, ...list],
    );
    void client.invalidateQueries({ queryKey: keys.gpuJobs });
  };
}
