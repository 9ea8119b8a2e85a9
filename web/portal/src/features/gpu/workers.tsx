import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { gpu, type Gpu, type Job, type Standing, type Worker } from "~/api/gpu";
import { keys, queries } from "~/api/queries";
import { Page } from "~/app/page";
import { ErrorState, explain } from "~/app/problem";
import { TEXT_LINK } from "~/features/auth/frame";
import { imageName } from "~/features/sandboxes/name";
import { StaleNote } from "~/features/work/parts";
import { Button, ButtonLink } from "~/ui/button";
import { bytes, duration, plural } from "~/ui/format";
import { Meter } from "~/ui/meter";
import { Bone, Panel } from "~/ui/states";
import { Badge, Notice } from "~/ui/status";
import { Age, useNow } from "~/ui/time";
import { notify } from "~/ui/toast";
import { NotPaired } from "./not-paired";
import { GpuTabs, useViewer, WorkerDot } from "./parts";
import { doing, jobTail, ranMs, workerRefusal } from "./rules";

/** Utilisation is worth looking at only while it is fresh. */
const REFRESH_MS = 3_000;

export function GpuWorkersPage() {
  const { data: workers, error, isError, refetch } = useQuery({ ...queries.gpuWorkers(), refetchInterval: REFRESH_MS });
  const { admin } = useViewer();
  const busy = workers?.filter((worker) => worker.busy === true).length ?? 0;
  return (
    <Page
      title="GPU workers"
      heading="GPU"
      lead={workers === undefined || workers.length === 0 ? "The boxes that run jobs." : `${plural(workers.length, "box", "boxes")}, ${busy} at work. Each runs one job at a time.`}
      actions={
        admin && workers !== undefined && workers.length > 0 ? (
          <ButtonLink to="/settings/gpu" kind="primary">
            Pair a box
          </ButtonLink>
        ) : undefined
      }
    >
      <GpuTabs />
      {workers === undefined ? (
        <Panel>
          {isError ? (
            <ErrorState error={error} title="Workers could not be loaded" onRetry={() => void refetch()} />
          ) : (
            <div role="status" aria-label="Loading workers" className="flex flex-col gap-4 p-5">
              <Bone className="h-4 w-32" />
              <Bone className="h-2 w-full" />
              <Bone className="h-2 w-full" />
            </div>
          )}
        </Panel>
      ) : workers.length === 0 ? (
        <Panel>
          <NotPaired admin={admin} what="Jobs run on a box with a GPU and Docker." />
        </Panel>
      ) : (
        <ul aria-label="Workers" className="flex flex-col gap-3">
          {workers.map((worker) => (
            <li key={worker.id}>
              <WorkerRow worker={worker} admin={admin} />
            </li>
          ))}
        </ul>
      )}
      {workers !== undefined && isError ? <StaleNote what="The workers" /> : null}
    </Page>
  );
}

function WorkerRow({ worker, admin }: { worker: Worker; admin: boolean }) {
  return (
    <Panel label={`Worker ${worker.id}`}>
      <div className="grid items-start gap-x-8 gap-y-4 px-5 py-4 md:grid-cols-[13rem_minmax(0,1fr)_auto]">
        <div className="flex min-w-0 flex-col gap-1">
          <div className="flex flex-wrap items-center gap-x-3">
            <h2 className="font-mono text-base font-semibold break-all">{worker.id}</h2>
            <span className="text-sm">
              <WorkerDot worker={worker} />
            </span>
          </div>
          <span className="text-xs text-muted">
            {[worker.arch, worker.cpus === null ? null : plural(worker.cpus, "CPU"), worker.memory_bytes === null ? null : bytes(worker.memory_bytes)].filter((part) => part !== null).join(" · ")}
          </span>
          <span className="text-xs text-muted">
            {worker.seen_at === null ? "no sign of life yet" : <>last sign: <Age at={worker.seen_at} /></>}
            {worker.link !== null ? ` · over ${worker.link === "nats" ? "NATS" : "HTTP"}` : null}
          </span>
          {worker.pool !== "default" ? (
            <span>
              <Badge>pool {worker.pool}</Badge>
            </span>
          ) : null}
        </div>
        <div className="grid min-w-0 gap-x-6 gap-y-3 sm:grid-cols-2">
          {worker.gpus.length === 0 ? <p className="text-sm text-muted sm:col-span-2">{worker.seen_at === null ? "It tells what it has with its first sign of life." : "It tells of no GPU."}</p> : null}
          {worker.gpus.map((each, index) => (
            <GpuMeters key={index} gpu={each} isFresh={worker.state === "online"} name={worker.gpus.length > 1 ? `GPU ${index + 1} of ${worker.id}` : `GPU of ${worker.id}`} />
          ))}
          {worker.disk_free_bytes !== null && worker.state === "online" ? <p className="text-xs text-muted sm:col-span-2">{bytes(worker.disk_free_bytes)} free on its disk</p> : null}
        </div>
        {admin ? <Verbs worker={worker} /> : null}
      </div>
      {worker.trouble !== null ? (
        <div className="border-t border-line p-3">
          <Notice tone="bad" title="It cannot take jobs" role="status">
            <p className="break-words">{worker.trouble}</p>
          </Notice>
        </div>
      ) : null}
      <div className="border-t border-line px-5 py-2.5 text-sm"><Doing worker={worker} /></div>
    </Panel>
  );
}

function GpuMeters({ gpu: device, name, isFresh }: { gpu: Gpu; name: string; isFresh: boolean }) {
  // Figures of a box that is not heard of any more would only mislead.
  if (!isFresh) return <p className="text-sm text-muted sm:col-span-2">{device.name}</p>;
  const notes = [
    device.temperature_celsius === null ? null : `${Math.round(device.temperature_celsius)} °C`,
    device.power_watts === null ? null : `${Math.round(device.power_watts)} W`,
    device.driver === "" ? null : `driver ${device.driver}`,
  ].filter((part) => part !== null);
  return (
    <>
      <Labelled title={device.name} total={notes.join(" · ")}>
        {device.utilisation_percent === null ? (
          <span className="text-xs text-muted">It does not tell how busy it is.</span>
        ) : (
          <Meter calm label={`Load of the ${name}`} used={device.utilisation_percent} total={100} text={`${Math.round(device.utilisation_percent)} % busy`} />
        )}
      </Labelled>
      {device.memory_bytes > 0 ? (
        <Labelled title="Its memory" total={bytes(device.memory_bytes)}>
          <Meter label={`Memory of the ${name}`} used={device.memory_used_bytes ?? 0} total={device.memory_bytes} text={`${bytes(device.memory_used_bytes ?? 0)} used`} />
        </Labelled>
      ) : (
        <Labelled title="Its memory" total="">
          <span className="text-xs text-muted">Shared with the box{device.memory_used_bytes === null ? "" : `, ${bytes(device.memory_used_bytes)} used`}.</span>
        </Labelled>
      )}
    </>
  );
}

function Labelled({ title, total, children }: { title: string; total: string; children: ReactNode }) {
  return (
    <div className="flex min-w-0 flex-col gap-1.5">
      <span className="flex flex-wrap justify-between gap-x-2 text-xs">
        <span className="font-medium">{title}</span>
        <span className="tabular text-muted">{total}</span>
      </span>
      {children}
    </div>
  );
}

/** Members are not told which job a box runs, but know their own. */
function Doing({ worker }: { worker: Worker }) {
  const { data: jobs } = useQuery(queries.gpuJobs());
  const job = jobs?.find((each) => (worker.job_id === null ? each.state === "running" && each.worker_id === worker.id : each.id === worker.job_id));
  if (job !== undefined) return <JobLine job={job} />;
  return worker.busy === true ? <span className="text-muted">It runs a job of somebody else.</span> : <Idle worker={worker} />;
}

function Idle({ worker }: { worker: Worker }) {
  if (worker.state !== "online") return <span className="text-muted">{worker.state === "new" ? "It is paired and starts to report in a moment." : "It gets no jobs until it is heard of again."}</span>;
  switch (worker.standing) {
    case "active":
      return <span className="text-muted">{worker.busy === false ? "Idle, takes the next job." : "It takes jobs in turn."}</span>;
    case "paused":
    case "draining":
      return <span className="text-muted">It takes no jobs until it is resumed.</span>;
  }
}

function JobLine({ job }: { job: Job }) {
  const now = useNow(true);
  const ms = ranMs(job, now);
  return (
    <span className="flex flex-wrap items-baseline gap-x-3">
      <Link to="/gpu/jobs/$jobId" params={{ jobId: job.id }} className={TEXT_LINK}>
        {imageName(job.image)} {jobTail(job.id)}
      </Link>
      <span className="tabular text-muted">{doing(job) ?? (ms === null ? "" : `runs for ${duration(ms)}`)}</span>
    </span>
  );
}

function Verbs({ worker }: { worker: Worker }) {
  const client = useQueryClient();
  const set = useMutation({
    mutationFn: (standing: Standing) => gpu.setWorker(worker.id, { standing }),
    onSuccess: (next) => {
      client.setQueryData<Worker[]>(keys.gpuWorkers, (list) => list?.map((each) => (each.id === next.id ? next : each)));
    },
    onError: (error) => {
      notify({ tone: "bad", title: `${worker.id} was not changed`, text: explain(error).what });
    },
  });
  if (worker.standing !== "active") {
    return (
      <Button
        size="sm"
        isPending={set.isPending}
        pendingLabel="Resuming"
        aria-label={`Resume ${worker.id}`}
        onPress={() => {
          set.mutate("active");
        }}
      >
        Resume
      </Button>
    );
  }
  return (
    <span className="flex gap-2">
      <Button
        size="sm"
        isPending={set.isPending}
        aria-label={`Drain ${worker.id}`}
        disabledReason={workerRefusal(worker, "drain")}
        onPress={() => {
          set.mutate("draining");
        }}
      >
        Drain
      </Button>
      <Button
        size="sm"
        isPending={set.isPending}
        aria-label={`Pause ${worker.id}`}
        onPress={() => {
          set.mutate("paused");
        }}
      >
        Pause
      </Button>
    </span>
  );
}
