import { useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useState } from "react";
import { ApiError } from "~/api/client";
import { artifactUrl, gpu, isFinal, type Job } from "~/api/gpu";
import { queries } from "~/api/queries";
import { Page } from "~/app/page";
import { ErrorState, explain } from "~/app/problem";
import { TEXT_LINK } from "~/features/auth/frame";
import { imageName } from "~/features/sandboxes/name";
import { StaleNote } from "~/features/work/parts";
import { Button, buttonClass, ButtonLink } from "~/ui/button";
import { Copyable } from "~/ui/copy";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Facts, type Fact } from "~/ui/facts";
import { Field } from "~/ui/field";
import { bytes, duration } from "~/ui/format";
import { DownloadIcon } from "~/ui/icons";
import { Bone, Panel } from "~/ui/states";
import { Badge, Notice } from "~/ui/status";
import { announce, Steps } from "~/ui/steps";
import { Age, useNow } from "~/ui/time";
import { notify } from "~/ui/toast";
import { JobLog } from "./job-log";
import { Owner } from "./jobs";
import { JobDot, MOVING_MS, useGpuPoll, useKeepJob, useViewer } from "./parts";
import { commandText, doing, failure, jobRefusal, jobTail, limitText, ranText, stepsOf, waitedMs } from "./rules";

const route = getRouteApi("/session/gpu/jobs/$jobId");

export function GpuJobPage() {
  const { jobId } = route.useParams();
  const calm = useGpuPoll();
  const { data: job, error, isError, refetch } = useQuery({
    ...queries.gpuJob(jobId),
    refetchInterval: (query) => (query.state.data !== undefined && isFinal(query.state.data.state) ? false : Math.min(calm, MOVING_MS)),
  });
  const gone = isError && error instanceof ApiError && error.status === 404;
  if (job === undefined || gone) {
    return (
      <Page title="GPU job">
        {isError ? (
          <Panel>
            <ErrorState error={error} title="The job could not be loaded" {...(gone ? {} : { onRetry: () => void refetch() })}>
              <ButtonLink to="/gpu/jobs">All jobs</ButtonLink>
            </ErrorState>
          </Panel>
        ) : (
          <div role="status" aria-label="Loading job" className="grid gap-4 lg:grid-cols-[minmax(0,1.8fr)_minmax(18rem,1fr)]">
            <Bone className="h-96 w-full" />
            <Bone className="h-96 w-full" />
          </div>
        )}
      </Page>
    );
  }
  return <JobView key={job.id} job={job} stale={isError} />;
}

function JobView({ job, stale }: { job: Job; stale: boolean }) {
  const isOver = isFinal(job.state);
  const why = job.state === "failed" ? failure(job) : null;
  const now = doing(job);
  return (
    <Page
      title={imageName(job.image)}
      lead={
        <span className="flex flex-wrap items-center gap-x-4 gap-y-1 text-sm">
          <JobDot job={job} />
          {now !== null ? <span>{now}</span> : null}
          {job.priority !== 0 ? <Badge tone="info">priority {job.priority}</Badge> : null}
          {job.attempt > 1 ? <Badge tone="wait">attempt {job.attempt}</Badge> : null}
        </span>
      }
      actions={
        <>
          <ArtifactButton job={job} />
          <ButtonLink to="/gpu/jobs/new" search={{ from: job.id }}>
            Submit again
          </ButtonLink>
          <CancelButton job={job} />
        </>
      }
    >
      {why !== null ? (
        <Notice tone="bad" title={why.title} role="status">
          {why.text !== null ? <p className="break-words">{why.text}</p> : null}
          {job.error_code !== null ? <p className="font-mono text-xs">{job.error_code}</p> : null}
        </Notice>
      ) : null}
      {job.artifact_note !== null ? (
        <Notice tone="wait" title="Its artifacts were not kept" role="status">
          <p className="break-words">{job.artifact_note}</p>
        </Notice>
      ) : null}
      <div className="grid min-w-0 items-start gap-4 lg:grid-cols-[minmax(0,1.8fr)_minmax(18rem,1fr)]">
        <Panel label="Log">
          <JobLog job={job} />
        </Panel>
        <div className="flex min-w-0 flex-col gap-4">
          {isOver ? null : <Progress job={job} />}
          <Panel label="About this job">
            <div className="px-4 py-1">
              <FactList job={job} />
            </div>
          </Panel>
        </div>
      </div>
      {stale ? <StaleNote what="This page" /> : null}
    </Page>
  );
}

function Progress({ job }: { job: Job }) {
  const now = useNow(true);
  const steps = stepsOf(job);
  return (
    <Panel label="Progress of this job">
      <div className="px-4 py-2">
        <Steps steps={steps} now={now} />
        {job.phase_note !== null ? <p className="pb-1.5 pl-8 text-sm break-words text-muted">{job.phase_note}</p> : null}
        <p role="status" aria-live="polite" className="sr-only">
          {announce(steps)}
        </p>
      </div>
    </Panel>
  );
}

function ArtifactButton({ job }: { job: Job }) {
  if (job.artifact_bytes !== null) {
    return (
      <a href={artifactUrl(job.id)} download className={buttonClass("default", "md")}>
        <DownloadIcon /> Artifact · {bytes(job.artifact_bytes)}
      </a>
    );
  }
  return (
    <Button disabledReason={jobRefusal(job, "artifact") ?? "It left nothing in /artifacts."}>
      <DownloadIcon /> Artifact
    </Button>
  );
}

function CancelButton({ job }: { job: Job }) {
  const keep = useKeepJob();
  const [asking, setAsking] = useState(false);
  const close = () => {
    setAsking(false);
  };
  const cancel = useMutation({
    mutationFn: () => gpu.cancel(job.id),
    onSuccess: (next) => {
      keep(next);
      close();
    },
    onError: (error) => {
      notify({ tone: "bad", title: "The job was not cancelled", text: explain(error).what });
    },
  });
  return (
    <>
      <Button
        isPending={cancel.isPending}
        pendingLabel="Cancelling"
        disabledReason={jobRefusal(job, "cancel")}
        onPress={() => {
          // What waits can be submitted again at no loss; what runs cannot be taken up again.
          if (job.state === "queued") cancel.mutate();
          else setAsking(true);
        }}
      >
        Cancel job
      </Button>
      <Dialog title="Cancel this job" role="alertdialog" isOpen={asking} onClose={close}>
        <p>Its container is stopped within seconds. The log stays; what it left in /artifacts is not kept.</p>
        <DialogActions>
          <Button onPress={close}>Let it run</Button>
          <Button
            kind="danger"
            isPending={cancel.isPending}
            pendingLabel="Cancelling"
            onPress={() => {
              cancel.mutate();
            }}
          >
            Cancel job
          </Button>
        </DialogActions>
      </Dialog>
    </>
  );
}

function FactList({ job }: { job: Job }) {
  const viewer = useViewer();
  const now = useNow(!isFinal(job.state));
  const command = commandText(job.command);
  const variables = Object.entries(job.env);
  const facts: Fact[] = [
    { label: "Id", value: <Copyable text={job.id} shown={jobTail(job.id)} label="Copy job id" /> },
    { label: "Image", value: <Copyable text={job.image} shown={imageName(job.image)} label="Copy image" /> },
    { label: "Command", value: command === "" ? <span className="text-muted">the image’s own</span> : <Copyable text={command} label="Copy command" /> },
    {
      label: "Worker",
      value: <code className="font-mono text-sm">{job.worker_id ?? "–"}</code>,
    },
    { label: "Pool", value: job.pool },
    ...(viewer.admin ? [{ label: "Owner", value: <Owner job={job} viewer={viewer.id} /> }] : []),
    ...(job.vm_id !== null
      ? [
          {
            label: "Machine",
            value: (
              <Link to="/machines/$machineId" params={{ machineId: job.vm_id }} className={TEXT_LINK}>
                {jobTail(job.vm_id)}
              </Link>
            ),
          },
        ]
      : []),
    { label: "Submitted", value: <Age at={job.queued_at} /> },
    { label: "Waited", value: <span className="tabular">{duration(waitedMs(job, now))}</span> },
    { label: "Ran", value: <span className="tabular">{ranText(job, now)}</span> },
    ...(job.exit_code !== null ? [{ label: "Exit code", value: <code className="font-mono">{job.exit_code}</code> }] : []),
    { label: "May run", value: job.time_limit_seconds === null ? "as long as it takes" : limitText(job.time_limit_seconds) },
    { label: "Memory", value: job.memory_bytes === null ? <span className="text-muted">what the box has</span> : bytes(job.memory_bytes) },
    ...(job.datasets.length > 0
      ? [{ label: "Datasets", value: <code className="font-mono text-sm break-words">{job.datasets.map((each) => `/datasets/${each.name}${each.writable ? " (writable)" : ""}`).join(", ")}</code> }]
      : []),
    ...(variables.length > 0
      ? [
          {
            label: "Variables",
            value: (
              <code className="block font-mono text-sm whitespace-pre-wrap break-words wrap-anywhere">{variables.map(([name, value]) => `${name}=${value}`).join("\n")}</code>
            ),
          },
        ]
      : []),
    { label: "Log", value: <span className="tabular">{bytes(job.log_end)}</span> },
    { label: "If the worker is lost", value: job.rerun ? "it is queued again" : "it fails" },
    ...(viewer.admin && job.state === "queued" ? [{ label: "Priority", value: <Priority job={job} /> }] : []),
  ];
  return <Facts items={facts} />;
}

function Priority({ job }: { job: Job }) {
  const keep = useKeepJob();
  const [value, setValue] = useState(String(job.priority));
  const wanted = Number(value);
  const wrong = value.trim() === "" || !Number.isInteger(wanted) || wanted < -100 || wanted > 100 ? "From -100 to 100." : null;
  const change = useMutation({
    mutationFn: () => gpu.prioritize(job.id, wanted),
    onSuccess: keep,
    onError: (error) => {
      notify({ tone: "bad", title: "The priority was not changed", text: explain(error).what });
    },
  });
  return (
    <form
      className="flex items-start gap-2"
      onSubmit={(event) => {
        event.preventDefault();
        if (wrong === null && wanted !== job.priority && !change.isPending) change.mutate();
      }}
    >
      <div className="w-20">
        <Field label="Priority of this job" hideLabel value={value} onChange={setValue} inputMode="numeric" error={wrong} />
      </div>
      <Button type="submit" className="h-9" isPending={change.isPending} pendingLabel="Changing" disabledReason={wrong ?? (wanted === job.priority ? "It has this priority." : null)}>
        Change
      </Button>
    </form>
  );
}
