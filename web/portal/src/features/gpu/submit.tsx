import { useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { useMemo, useRef, useState } from "react";
import { Form } from "react-aria-components/Form";
import { Label } from "react-aria-components/Label";
import { RadioGroup } from "react-aria-components/RadioGroup";
import { ApiError } from "~/api/client";
import { gpu, isFinal, type SubmitJob } from "~/api/gpu";
import { queries } from "~/api/queries";
import { Page } from "~/app/page";
import { ErrorState, InlineError } from "~/app/problem";
import { splitCommand } from "~/features/sandboxes/argv";
import { imageName } from "~/features/sandboxes/name";
import { Button, ButtonLink } from "~/ui/button";
import { ChoiceCard, ChoiceDot } from "~/ui/choice";
import { CodeBlock } from "~/ui/code";
import { Combo, type Suggestion } from "~/ui/combo";
import { CommandLine } from "~/ui/copy";
import { Field } from "~/ui/field";
import { Fold } from "~/ui/fold";
import { plural } from "~/ui/format";
import { Rows } from "~/ui/rows";
import { Segments } from "~/ui/segments";
import { Select } from "~/ui/select";
import { Bone, Panel } from "~/ui/states";
import { Switch } from "~/ui/switch";
import { draftOf, loadDraft, problems, saveDraft, timesWith, toRequest, type JobDraft, type Problems, type Run } from "./draft";
import { useKeepJob, useViewer } from "./parts";
import { submitCommand, submitCurl } from "./snippets";

const route = getRouteApi("/session/gpu/jobs/new");

const WELL_KNOWN: readonly Suggestion[] = [
  { key: "nvcr.io/nvidia/pytorch:25.09-py3", hint: "PyTorch, CUDA" },
  { key: "pytorch/pytorch:latest", hint: "PyTorch" },
  { key: "nvidia/cuda:13.0.1-runtime-ubuntu24.04", hint: "CUDA" },
  { key: "python:3.13-slim", hint: "Python" },
];

/** A key of our own: crypto.randomUUID does not exist on plain HTTP. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function SubmitJobPage() {
  const { from } = route.useSearch();
  const again = useQuery({ ...queries.gpuJob(from ?? ""), enabled: from !== undefined });
  return (
    <Page title="Submit job" lead="A container on a GPU box. It runs when its turn comes.">
      {from === undefined ? (
        <SubmitForm initial={loadDraft} />
      ) : again.data !== undefined ? (
        <SubmitForm key={from} initial={draftOf(again.data)} />
      ) : again.isError ? (
        <Panel>
          <ErrorState error={again.error} title="The job to submit again could not be loaded" onRetry={() => void again.refetch()} />
        </Panel>
      ) : (
        <Bone className="h-96 w-full max-w-2xl" />
      )}
    </Page>
  );
}

function SubmitForm({ initial }: { initial: JobDraft | (() => JobDraft) }) {
  const navigate = useNavigate();
  const keep = useKeepJob();
  const { admin, id: viewer } = useViewer();
  const [draft, setDraft] = useState<JobDraft>(initial);
  const [tried, setTried] = useState(false);
  const attempt = useRef<{ body: string; key: string } | null>(null);
  const jobs = useQuery(queries.gpuJobs());
  const workers = useQuery(queries.gpuWorkers());
  const request = useMemo(() => toRequest(draft), [draft]);
  const found = problems(draft);
  const shown: Problems = tried ? found : {};

  const suggestions = useMemo(() => {
    const used = new Set((jobs.data ?? []).filter((job) => job.owner_id === viewer).map((job) => imageName(job.image)));
    return [...[...used].map((key) => ({ key, hint: "used before" })), ...WELL_KNOWN.filter((item) => !used.has(item.key))];
  }, [jobs.data, viewer]);
  const pools = useMemo(() => [...new Set(["default", ...(workers.data ?? []).map((worker) => worker.pool)])], [workers.data]);

  const change = (part: Partial<JobDraft>) => {
    setDraft((before) => {
      const next = { ...before, ...part };
      saveDraft(next);
      return next;
    });
  };

  const submit = useMutation({
    mutationFn: (body: SubmitJob) => {
      const text = JSON.stringify(body);
      // The same request after a lost answer must not make a second job.
      if (attempt.current?.body !== text) attempt.current = { body: text, key: randomKey() };
      return gpu.submit(body, attempt.current.key);
    },
    onSuccess: (job) => {
      keep(job);
      void navigate({ to: "/gpu/jobs/$jobId", params: { jobId: job.id } });
    },
    onError: (error) => {
      const lost = error instanceof ApiError && (error.status === 0 || error.status >= 502);
      if (!lost) attempt.current = null;
    },
  });

  const send = () => {
    setTried(true);
    if (submit.isPending) return;
    if (Object.keys(found).length > 0) {
      requestAnimationFrame(() => {
        document.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
      });
      return;
    }
    submit.mutate(request);
  };

  const waiting = (jobs.data ?? []).filter((job) => job.state === "queued" && job.pool === draft.pool).length;
  const takers = (workers.data ?? []).filter((worker) => worker.pool === draft.pool && worker.state === "online" && worker.standing === "active");
  const idle = takers.filter((worker) => worker.busy === false);

  return (
    <Form
      className="grid items-start gap-x-10 gap-y-8 xl:grid-cols-[minmax(0,42rem)_minmax(20rem,1fr)]"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div className="flex min-w-0 flex-col gap-6">
        <Combo
          label="Image"
          mono
          autoFocus
          value={draft.image}
          onChange={(image) => {
            change({ image });
          }}
          suggestions={suggestions}
          placeholder="nvcr.io/nvidia/pytorch:25.09-py3"
          description="For the architecture of the box; it is pulled there. Short names mean Docker Hub."
          error={shown.image}
        />
        <RunChoice draft={draft} change={change} error={shown.command} />
        <div className="grid items-start gap-4 sm:grid-cols-2">
          <Select
            tall
            label="Time limit"
            options={timesWith(draft.time)}
            value={draft.time}
            onChange={(time) => {
              change({ time });
            }}
          />
          <Field
            label="Memory limit"
            value={draft.memoryGib}
            onChange={(memoryGib) => {
              change({ memoryGib });
            }}
            inputMode="decimal"
            placeholder="none"
            description="In GiB. Without one it may take what the box has."
            error={shown.memoryGib}
          />
        </div>
        <Options draft={draft} change={change} problems={shown} pools={pools} admin={admin} />
        {submit.isError ? <InlineError error={submit.error} /> : null}
        <div className="flex flex-wrap items-center gap-2">
          <Button kind="primary" size="lg" type="submit" isPending={submit.isPending} pendingLabel="Submitting">
            Submit job
          </Button>
          <ButtonLink to="/gpu/jobs" kind="quiet" size="lg">
            Cancel
          </ButtonLink>
          {Object.keys(shown).length > 0 ? (
            <p role="status" className="text-sm text-bad-text">
              {Object.values(shown)[0]}
            </p>
          ) : null}
        </div>
      </div>
      <aside aria-label="What will happen" className="flex min-w-0 flex-col gap-5 xl:sticky xl:top-20">
        <div className="flex flex-col gap-2 rounded-lg border border-line bg-sunken p-4 text-sm">
          <h2 className="font-semibold">What will happen</h2>
          {workers.data === undefined ? (
            <Bone className="h-4 w-48" />
          ) : takers.length === 0 ? (
            <p>No box takes jobs in the pool {draft.pool} now. The job waits until one does.</p>
          ) : idle.length > 0 && waiting === 0 ? (
            <p>
              <code className="font-mono">{idle[0]?.id}</code> is idle: it starts at once, after its image is there.
            </p>
          ) : (
            <p>{takers.length === 1 ? "The box of this pool is busy" : `All ${takers.length} boxes of this pool are busy`}. It starts when its turn comes, in the order of submission.</p>
          )}
          <p className="text-muted">
            Whatever it writes to <code className="font-mono">/artifacts</code> is packed when it ends, for you to download. Its log is here while it runs and after.
          </p>
        </div>
        <Terminal request={request} />
        {jobs.data !== undefined && !admin ? (
          <p className="text-sm text-muted">{plural(jobs.data.filter((job) => !isFinal(job.state)).length, "job")} of yours queued or running now.</p>
        ) : null}
      </aside>
    </Form>
  );
}

const KINDS = [
  { key: "cli", label: "CLI" },
  { key: "curl", label: "curl" },
] as const;

function Terminal({ request }: { request: SubmitJob }) {
  const [kind, setKind] = useState<(typeof KINDS)[number]["key"]>("cli");
  return (
    <div className="flex min-w-0 flex-col gap-2">
      <div className="flex flex-wrap items-center justify-between gap-3">
        <h2 className="text-xs text-muted">The same from a terminal</h2>
        <Segments label="How" options={KINDS} value={kind} onChange={setKind} />
      </div>
      {kind === "cli" ? (
        <CommandLine command={submitCommand(request)} label="CLI snippet" wrap />
      ) : (
        <CodeBlock text={submitCurl(request, window.location.origin)} label="curl snippet" />
      )}
    </div>
  );
}

const RUNS: readonly { key: Run; label: string; text: string }[] = [
  { key: "shell", label: "A line for the shell", text: "Pipes, variables and several lines work." },
  { key: "words", label: "Exact words", text: "No shell is involved." },
  { key: "image", label: "The image’s own", text: "Whatever the image runs by itself." },
];

function RunChoice({ draft, change, error }: { draft: JobDraft; change: (part: Partial<JobDraft>) => void; error: string | undefined }) {
  const words = draft.run === "words" ? splitCommand(draft.command) : null;
  return (
    <RadioGroup
      value={draft.run}
      onChange={(value) => {
        change({ run: RUNS.find((item) => item.key === value)?.key ?? "shell" });
      }}
      className="flex flex-col gap-2"
    >
      <Label className="text-sm font-medium">What it runs</Label>
      <div className="grid gap-3 sm:grid-cols-3">
        {RUNS.map((item) => (
          <ChoiceCard key={item.key} value={item.key} className="gap-0.5">
            <span className="flex items-center justify-between gap-2">
              <span className="font-medium">{item.label}</span>
              <ChoiceDot />
            </span>
            <span className="text-xs text-muted">{item.text}</span>
          </ChoiceCard>
        ))}
      </div>
      {draft.run === "image" ? null : (
        <div className="pt-2">
          <Field
            label="Command"
            mono
            {...(draft.run === "shell" ? { rows: 4 } : {})}
            value={draft.command}
            onChange={(command) => {
              change({ command });
            }}
            autoComplete="off"
            placeholder={draft.run === "shell" ? "python train.py --epochs 3 | tee /artifacts/train.log" : "python train.py --epochs 3"}
            description={
              draft.run === "shell"
                ? "Given to sh -c inside the image."
                : words !== null && words.length > 1
                  ? `${words.length} words: ${words.map((word) => JSON.stringify(word)).join(" ")}`
                  : "Split into words as a shell would; quotes hold words together."
            }
            error={error}
          />
        </div>
      )}
    </RadioGroup>
  );
}

const ACCESS = [
  { key: "read", label: "Read only" },
  { key: "write", label: "Read and write" },
] as const;

function Options({ draft, change, problems: shown, pools, admin }: { draft: JobDraft; change: (part: Partial<JobDraft>) => void; problems: Problems; pools: readonly string[]; admin: boolean }) {
  const variables = draft.env.filter((each) => each.name !== "").length;
  const datasets = draft.datasets.filter((each) => each.name !== "").length;
  const more = [
    draft.pool === "default" ? null : `pool ${draft.pool}`,
    draft.priority === "0" ? null : `priority ${draft.priority}`,
    draft.rerun ? "runs again" : null,
  ].filter((part) => part !== null);
  return (
    <section aria-label="Options" className="rounded-lg border border-line bg-panel">
      <h2 className="sr-only">Options</h2>
      <Fold title="Environment" summary={variables === 0 ? "nothing added" : plural(variables, "variable")} defaultExpanded={variables > 0}>
        <Rows
          label="variable"
          items={draft.env}
          empty={{ name: "", value: "" }}
          add="Add variable"
          onChange={(env) => {
            change({ env });
          }}
          render={(item, set, index) => (
            <>
              <div className="min-w-36 flex-1">
                <Field label={`Name ${index + 1}`} value={item.name} onChange={(name) => { set({ name }); }} mono autoComplete="off" placeholder="EPOCHS" />
              </div>
              <div className="min-w-36 flex-[2]">
                <Field label={`Value ${index + 1}`} value={item.value} onChange={(value) => { set({ value }); }} mono autoComplete="off" />
              </div>
            </>
          )}
        />
        <Problem text={shown.env} />
      </Fold>
      <Fold title="Datasets" summary={datasets === 0 ? "none" : plural(datasets, "dataset")} defaultExpanded={datasets > 0}>
        <p className="text-sm text-muted">
          Named volumes on the box, at <code className="font-mono">/datasets/name</code> in the job. A job that may write to one makes it when it is not there yet.
        </p>
        <Rows
          label="dataset"
          items={draft.datasets}
          empty={{ name: "", access: "read" as const }}
          add="Add dataset"
          onChange={(chosen) => {
            change({ datasets: chosen });
          }}
          render={(item, set, index) => (
            <>
              <div className="min-w-36 flex-1">
                <Field label={`Dataset ${index + 1}`} value={item.name} onChange={(name) => { set({ name }); }} mono autoComplete="off" placeholder="imagenet" />
              </div>
              <Select tall className="min-w-40" label={`Access ${index + 1}`} options={ACCESS} value={item.access} onChange={(access) => { set({ access }); }} />
            </>
          )}
        />
        <Problem text={shown.datasets} />
      </Fold>
      <Fold title="Where and when" summary={more.length === 0 ? "as usual" : more.join(", ")}>
        <div className="grid items-start gap-4 sm:grid-cols-2">
          <Combo
            label="Pool"
            value={draft.pool}
            onChange={(pool) => {
              change({ pool });
            }}
            suggestions={pools.map((key) => ({ key }))}
            description="Only boxes of this pool take the job."
            error={shown.pool}
          />
          {admin ? (
            <Field
              label="Priority"
              value={draft.priority}
              onChange={(priority) => {
                change({ priority });
              }}
              inputMode="numeric"
              description="-100 to 100; higher goes first."
              error={shown.priority}
            />
          ) : null}
        </div>
        <Switch
          label="Queue it again if its worker is lost"
          isSelected={draft.rerun}
          onChange={(rerun) => {
            change({ rerun });
          }}
        />
      </Fold>
    </section>
  );
}

function Problem({ text }: { text: string | undefined }) {
  return text === undefined ? null : (
    <p role="alert" className="text-xs font-medium text-bad-text">
      {text}
    </p>
  );
}
