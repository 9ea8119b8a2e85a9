import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { isFinal, type Job } from "~/api/gpu";
import { queries } from "~/api/queries";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { imageName } from "~/features/sandboxes/name";
import { StaleNote } from "~/features/work/parts";
import { ButtonLink } from "~/ui/button";
import { Filter } from "~/ui/filter";
import { PlusIcon } from "~/ui/icons";
import { Segments } from "~/ui/segments";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age, useNow } from "~/ui/time";
import { NotPaired } from "./not-paired";
import { GpuTabs, JobDot, MOVING_MS, useGpuPoll, useViewer } from "./parts";
import { commandText, doing, JOB, jobTail, ranText } from "./rules";

type Shown = "all" | "active" | "over";

function columns(viewer: { admin: boolean; id: string }): ColumnDef<Job>[] {
  return [
    {
      id: "job",
      header: "Job",
      rowHeader: true,
      phone: "title",
      sort: (job) => `${imageName(job.image)} ${commandText(job.command)}`,
      cell: (job) => <JobName job={job} />,
    },
    {
      id: "state",
      header: "State",
      sort: (job) => JOB[job.state].label,
      phone: "aside",
      cell: (job) => <JobDot job={job} />,
    },
    {
      id: "doing",
      header: "Detail",
      phone: "line",
      cell: (job) => <Doing job={job} />,
    },
    ...(viewer.admin
      ? [{ id: "owner", header: "Owner", sort: (job: Job) => job.owner_id, cell: (job: Job) => <Owner job={job} viewer={viewer.id} /> }]
      : []),
    { id: "worker", header: "Worker", sort: (job) => job.worker_id ?? "", cell: (job) => <span className="font-mono text-sm text-muted">{job.worker_id ?? "–"}</span> },
    { id: "ran", header: "Ran", className: "text-right", cell: (job) => <Ran job={job} /> },
    {
      id: "age",
      header: "Submitted",
      sort: (job) => -Date.parse(job.queued_at),
      phone: "end",
      cell: (job) => (
        <span className="text-muted">
          <Age at={job.queued_at} />
        </span>
      ),
    },
  ];
}

function JobName({ job }: { job: Job }) {
  const command = commandText(job.command);
  return (
    <span className="flex max-w-md min-w-0 flex-col py-1.5 max-md:py-0">
      <span className="truncate font-medium">{imageName(job.image)}</span>
      {command === "" ? <span className="truncate text-xs text-muted">the image’s own command</span> : <code className="truncate font-mono text-xs text-muted">{command}</code>}
      <span className="sr-only">{jobTail(job.id)}</span>
    </span>
  );
}

function Doing({ job }: { job: Job }) {
  const text = job.state === "failed" ? (job.exit_code !== null && job.exit_code > 0 ? `code ${job.exit_code}` : (job.error_msg ?? "")) : (doing(job) ?? "");
  return <span className="block max-w-64 truncate text-muted max-md:max-w-full">{text}</span>;
}

export function Owner({ job, viewer }: { job: { owner_id: string; owner_name?: string | null }; viewer: string }) {
  if (job.owner_id === viewer) return <span>you</span>;
  if (job.owner_name != null) return <span>{job.owner_name}</span>;
  return (
    <code title={job.owner_id} className="font-mono text-sm text-muted">
      {jobTail(job.owner_id)}
    </code>
  );
}

function Ran({ job }: { job: Job }) {
  const now = useNow(job.state === "running" && job.started_at !== null);
  return <span className="tabular text-muted">{ranText(job, now)}</span>;
}

function matches(job: Job, needle: string): boolean {
  const text = [job.id, job.image, commandText(job.command), job.worker_id, job.pool, JOB[job.state].label, job.owner_name].join(" ").toLowerCase();
  return needle
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

export function GpuJobsPage() {
  const navigate = useNavigate();
  const viewer = useViewer();
  const [needle, setNeedle] = useState("");
  const [shown, setShown] = useState<Shown>("all");
  const calm = useGpuPoll();
  const { data: jobs, error, refetch, isError } = useQuery({
    ...queries.gpuJobs(),
    refetchInterval: (query) => (query.state.data?.some((job) => !isFinal(job.state)) === true ? Math.min(calm, MOVING_MS) : calm),
  });
  const active = useMemo(() => (jobs ?? []).filter((job) => !isFinal(job.state)), [jobs]);
  const workers = useQuery(queries.gpuWorkers());
  const rows = useMemo(
    () => (jobs ?? []).filter((job) => (shown === "all" || isFinal(job.state) === (shown === "over")) && matches(job, needle.trim())),
    [jobs, shown, needle],
  );
  const { admin, id } = viewer;
  const table = useMemo(() => columns({ admin, id }), [admin, id]);
  const count = jobs?.length ?? 0;
  const isPaired = workers.data === undefined || workers.data.length > 0;
  return (
    <Page
      title="GPU jobs"
      heading="GPU"
      lead="One job after another on each box, in the order they came."
      actions={
        count > 0 ? (
          <ButtonLink to="/gpu/jobs/new" kind="primary">
            <PlusIcon /> Submit job
          </ButtonLink>
        ) : undefined
      }
    >
      <GpuTabs />
      {count > 3 ? (
        <div className="flex flex-wrap items-center gap-3">
          <Filter label="Filter jobs" value={needle} onChange={setNeedle} />
          <Segments
            label="Which jobs"
            options={[
              { key: "all", label: "All", count },
              { key: "active", label: "Active", count: active.length },
              { key: "over", label: "Ended", count: count - active.length },
            ]}
            value={shown}
            onChange={setShown}
          />
        </div>
      ) : null}
      <Panel>
        {jobs === undefined ? (
          isError ? (
            <ErrorState error={error} title="Jobs could not be loaded" onRetry={() => void refetch()} />
          ) : (
            <TableSkeleton label="jobs" />
          )
        ) : count > 0 ? (
          <DataTable
            label="Jobs"
            rows={rows}
            rowId={(job) => job.id}
            columns={table}
            defaultSort={{ column: "age", direction: "ascending" }}
            onOpen={(job) => void navigate({ to: "/gpu/jobs/$jobId", params: { jobId: job.id } })}
            empty={<p className="px-6 py-8 text-center text-muted">{needle === "" ? "None of these." : `No job matches “${needle}”.`}</p>}
          />
        ) : isPaired ? (
          <EmptyState
            title="No jobs yet"
            action={
              <ButtonLink to="/gpu/jobs/new" kind="primary">
                <PlusIcon /> Submit job
              </ButtonLink>
            }
            command="nimbus gpu submit python:3.13-slim -- python -c 'print(6 * 7)'"
          >
            A job is a container on a GPU box: an image, a command, and what it leaves in <code className="font-mono text-sm">/artifacts</code>. Its log is here while it runs and after.
          </EmptyState>
        ) : (
          <NotPaired admin={admin} what="Jobs run on a box with a GPU and Docker." />
        )}
      </Panel>
      {jobs !== undefined && isError ? <StaleNote what="The list" /> : null}
    </Page>
  );
}
