import { useQueryClient } from "@tanstack/react-query";
import { useState, useSyncExternalStore, type ReactNode } from "react";
import { followLog, isFinal, logUrl, type Job } from "~/api/gpu";
import { keys } from "~/api/queries";
import { explain } from "~/app/problem";
import { Button } from "~/ui/button";
import { bytes, plural } from "~/ui/format";
import { LogView } from "~/ui/log-view";
import { Notice, StatusDot } from "~/ui/status";
import { JobFeed, TAIL_BYTES, type JobFeedState } from "./feed";
import { doing } from "./rules";

/** The log of a job, live while it runs. Of a long one the end comes first. */
export function JobLog({ job }: { job: Job }) {
  const [from, setFrom] = useState(() => Math.max(0, job.log_end - TAIL_BYTES));
  return (
    // Another attempt begins another log.
    <Feed
      key={`${job.attempt} ${from}`}
      job={job}
      from={from}
      onWhole={() => {
        setFrom(0);
      }}
    />
  );
}

function Feed({ job, from, onWhole }: { job: Job; from: number; onWhole: () => void }) {
  const client = useQueryClient();
  const [feed] = useState(
    () =>
      new JobFeed(
        (offset, onEvent, signal) => followLog(job.id, offset, onEvent, signal),
        from,
        () => {
          void client.invalidateQueries({ queryKey: keys.gpuJob(job.id) });
        },
      ),
  );
  const state = useSyncExternalStore(feed.subscribe, feed.read);
  return (
    <div className="flex min-w-0 flex-col">
      {from > 0 || state.dropped > 0 ? (
        <div className="flex flex-wrap items-center gap-x-4 gap-y-1 border-b border-line bg-sunken px-4 py-2 text-sm text-muted">
          <span>{from > 0 ? `The first ${bytes(from)} are not shown.` : `The first ${plural(state.dropped, "line")} are not shown.`}</span>
          {from > 0 ? (
            <Button size="sm" kind="quiet" onPress={onWhole}>
              Show all
            </Button>
          ) : null}
          <a href={logUrl(job.id)} download={`${job.id}.log`} className="rounded-sm font-medium text-accent-text underline-offset-2 hover:underline">
            Download
          </a>
        </div>
      ) : null}
      <LogView label="log" tall rows={state.rows} note={<Phase state={state} isOver={isFinal(job.state)} />} empty={<Empty job={job} state={state} />} />
      {job.log_truncated ? (
        <div className="border-t border-line p-3">
          <Notice tone="wait" title="The log was cut" role="status">
            <p>
              It printed {bytes(job.log_bytes)}; the first {bytes(job.log_end)} are kept. The job itself went on.
            </p>
          </Notice>
        </div>
      ) : null}
    </div>
  );
}

function Phase({ state, isOver }: { state: JobFeedState; isOver: boolean }) {
  return <span className="text-xs text-muted">{phaseOf(state, isOver)}</span>;
}

function phaseOf(state: JobFeedState, isOver: boolean): ReactNode {
  switch (state.phase) {
    case "following":
      if (!isOver) return <StatusDot tone="good">Live</StatusDot>;
      return <StatusDot tone="idle">Loading</StatusDot>;
    case "loading":
      return <StatusDot tone="idle">Loading</StatusDot>;
    case "lost":
      return (
        <StatusDot tone="wait" moving>
          Reconnecting
        </StatusDot>
      );
    case "refused":
      return <StatusDot tone="bad">Not told</StatusDot>;
    case "ended":
      return "Complete";
  }
}

function Empty({ job, state }: { job: Job; state: JobFeedState }) {
  if (state.phase === "lost" || state.phase === "refused") return explain(state.error).what;
  if (state.phase === "loading" || (state.phase === "following" && isFinal(job.state))) return "Loading the log.";
  if (job.state === "queued") return `It waits: ${doing(job) ?? "in the queue"}. What it prints is shown here as soon as it runs.`;
  if (state.phase === "ended") return job.started_at === null ? "It never ran, so it printed nothing." : "It printed nothing.";
  return job.phase === "running" ? "It has printed nothing yet." : "Its container does not run yet.";
}
