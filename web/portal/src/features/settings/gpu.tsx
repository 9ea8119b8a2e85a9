import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { ApiError } from "~/api/client";
import { gpu, type GpuSettings, type Pairing, type Unpaired, type Worker } from "~/api/gpu";
import { keys, queries } from "~/api/queries";
import { Page } from "~/app/page";
import { ErrorState, explain, InlineError } from "~/app/problem";
import { WorkerDot } from "~/features/gpu/parts";
import { StaleNote } from "~/features/work/parts";
import { Button, IconButton } from "~/ui/button";
import { CommandLine } from "~/ui/copy";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { plural } from "~/ui/format";
import { MoreIcon, PlusIcon } from "~/ui/icons";
import { Menu } from "~/ui/menu";
import { Bone, EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { Switch } from "~/ui/switch";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";
import { notify } from "~/ui/toast";
import { PairingPanel } from "./pairing";

const REFRESH_MS = 5_000;
const WATCHING_MS = 1_500;

/** A token that was asked for, and what was there before it is used. */
export interface Started {
  pairing: Pairing;
  at: number;
  /** The box whose credentials are replaced; null for any box. */
  worker: string | null;
  /** When each box was paired, as it was at the start. */
  before: ReadonlyMap<string, string>;
}

export function GpuSettingsPage() {
  const [started, setStarted] = useState<Started | null>(null);
  // Kept here, because the box leaves the list before its last line was read.
  const [leaving, setLeaving] = useState<Worker | null>(null);
  const workers = useQuery({ ...queries.gpuWorkers(), refetchInterval: started === null ? REFRESH_MS : WATCHING_MS });
  const settings = useQuery(queries.gpuSettings());
  const begin = useMutation({
    mutationFn: (worker: string | null) => (worker === null ? gpu.pair() : gpu.rotate(worker)),
    onSuccess: (pairing, worker) => {
      setStarted({ pairing, at: Date.now(), worker, before: new Map((workers.data ?? []).map((each) => [each.id, each.paired_at])) });
    },
    onError: (error) => {
      // Without an address that the box can reach there is nothing to paste: the page says what to do about it.
      if (!(error instanceof ApiError && error.status === 412)) notify({ tone: "bad", title: "No pairing token was made", text: explain(error).what });
    },
  });
  const pair = (
    <Button
      kind="primary"
      isPending={begin.isPending}
      pendingLabel="Making a token"
      onPress={() => {
        begin.mutate(null);
      }}
    >
      <PlusIcon /> Pair a box
    </Button>
  );
  return (
    <Page title="Settings" lead="Boxes with a GPU, and the models that answer on them." actions={(workers.data?.length ?? 0) > 0 && started === null ? pair : undefined}>
      {begin.isError && begin.error instanceof ApiError && begin.error.status === 412 ? <InlineError error={begin.error} /> : null}
      {started !== null ? (
        <PairingPanel
          key={started.pairing.token}
          started={started}
          workers={workers.data ?? []}
          onAgain={() => {
            begin.mutate(started.worker);
          }}
          isAgain={begin.isPending}
          onClose={() => {
            setStarted(null);
          }}
        />
      ) : null}
      <section className="flex flex-col gap-3" aria-labelledby="boxes">
        <h2 id="boxes" className="text-lg font-semibold">
          Boxes
        </h2>
        <Panel>
          {workers.data === undefined ? (
            workers.isError ? (
              <ErrorState error={workers.error} title="Boxes could not be loaded" onRetry={() => void workers.refetch()} />
            ) : (
              <TableSkeleton label="boxes" rows={2} />
            )
          ) : workers.data.length === 0 ? (
            <EmptyState title="No box is paired" action={started === null ? pair : null} command="nimbus gpu pair">
              Any Linux box with Docker, arm64 or x86-64. It needs to reach this portal; one line pasted there does the rest.
            </EmptyState>
          ) : (
            <Boxes
              workers={workers.data}
              onRotate={(worker) => {
                begin.mutate(worker);
              }}
              onUnpair={setLeaving}
            />
          )}
        </Panel>
        {workers.data !== undefined && workers.isError ? <StaleNote what="The boxes" /> : null}
        {leaving !== null ? (
          <UnpairDialog
            worker={leaving}
            onClose={() => {
              setLeaving(null);
            }}
          />
        ) : null}
      </section>
      <section className="flex flex-col gap-3" aria-labelledby="use">
        <h2 id="use" className="text-lg font-semibold">
          Use
        </h2>
        <Panel>
          {settings.data === undefined ? (
            settings.isError ? (
              <ErrorState error={settings.error} title="Settings could not be loaded" onRetry={() => void settings.refetch()} />
            ) : (
              <div role="status" aria-label="Loading settings" className="p-5">
                <Bone className="h-40 w-full" />
              </div>
            )
          ) : (
            // What others change meanwhile takes the place of what was loaded, unless something was typed.
            <SettingsForm key={shownOf(settings.data)} settings={settings.data} />
          )}
        </Panel>
      </section>
    </Page>
  );
}

function Boxes({ workers, onRotate, onUnpair }: { workers: readonly Worker[]; onRotate: (worker: string) => void; onUnpair: (worker: Worker) => void }) {
  const columns: ColumnDef<Worker>[] = [
    { id: "name", header: "Box", rowHeader: true, phone: "title", sort: (worker) => worker.id, cell: (worker) => <span className="font-mono text-sm font-medium">{worker.id}</span> },
    { id: "state", header: "State", phone: "aside", cell: (worker) => <WorkerDot worker={worker} /> },
    {
      id: "gpus",
      header: "GPU",
      phone: "line",
      cell: (worker) => <span className="block truncate text-muted">{worker.gpus.length === 0 ? "none told of" : worker.gpus.map((each) => each.name).join(", ")}</span>,
    },
    { id: "pool", header: "Pool", cell: (worker) => worker.pool },
    { id: "address", header: "Address", cell: (worker) => <code className="font-mono text-sm text-muted">{worker.address}</code> },
    { id: "version", header: "Version", cell: (worker) => <span className="text-muted">{worker.version ?? "–"}</span> },
    {
      id: "paired",
      header: "Paired",
      cell: (worker) => (
        <span className="text-muted">
          <Age at={worker.paired_at} />
        </span>
      ),
    },
    {
      id: "actions",
      header: "Actions",
      hideHeader: true,
      phone: "end",
      className: "text-right",
      cell: (worker) => (
        <Menu
          label={`Actions for ${worker.id}`}
          entries={[
            {
              type: "item",
              id: "rotate",
              label: "Replace its credentials",
              onAction: () => {
                onRotate(worker.id);
              },
            },
            {
              type: "item",
              id: "unpair",
              label: "Unpair",
              danger: true,
              onAction: () => {
                onUnpair(worker);
              },
            },
          ]}
        >
          <IconButton label={`Actions for ${worker.id}`}>
            <MoreIcon />
          </IconButton>
        </Menu>
      ),
    },
  ];
  return <DataTable label="Boxes" rows={workers} rowId={(worker) => worker.id} columns={columns} empty={null} />;
}

function UnpairDialog({ worker, onClose }: { worker: Worker; onClose: () => void }) {
  const client = useQueryClient();
  const unpair = useMutation({
    mutationFn: () => gpu.unpair(worker.id),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: keys.gpuSettings });
      void client.invalidateQueries({ queryKey: keys.gpuInference });
      void client.invalidateQueries({ queryKey: keys.gpuJobs });
      void client.invalidateQueries({ queryKey: keys.gpuWorkers });
    },
  });
  return (
    <Dialog title={unpair.isSuccess ? `${worker.id} is unpaired` : `Unpair ${worker.id}`} role="alertdialog" isOpen onClose={onClose} wide>
      {unpair.data !== undefined ? (
        <Goodbye report={unpair.data} worker={worker.id} />
      ) : (
        <>
          <p>
            {worker.job_id === null ? "It runs nothing now." : "The job that it runs is cancelled."} Its credentials stop working at once. Pairing it again needs its terminal.
          </p>
          {unpair.isError ? <InlineError error={unpair.error} /> : null}
        </>
      )}
      <DialogActions>
        {unpair.data !== undefined ? (
          <Button kind="primary" onPress={onClose}>
            Done
          </Button>
        ) : (
          <>
            <Button onPress={onClose}>Cancel</Button>
            <Button
              kind="danger"
              isPending={unpair.isPending}
              pendingLabel="Unpairing"
              onPress={() => {
                unpair.mutate();
              }}
            >
              Unpair box
            </Button>
          </>
        )}
      </DialogActions>
    </Dialog>
  );
}

function Goodbye({ report, worker }: { report: Unpaired; worker: string }) {
  return (
    <div className="flex flex-col gap-3">
      <p>
        {report.cancelled_jobs === 0 ? "No job was cancelled." : `${plural(report.cancelled_jobs, "job")} cancelled.`} What was installed is still on the box. This line, run there, removes it:
      </p>
      <CommandLine command={report.cleanup_cmd} label={`cleanup command for ${worker}`} wrap />
    </div>
  );
}

/** What the form shows of the settings; boxes come and go without it. */
function shownOf({ enabled, base_url, inference_model, job_quota }: GpuSettings): string {
  return JSON.stringify([enabled, base_url, inference_model, job_quota]);
}

function SettingsForm({ settings }: { settings: GpuSettings }) {
  const client = useQueryClient();
  const [enabled, setEnabled] = useState(settings.enabled);
  const [base, setBase] = useState(settings.base_url);
  const [model, setModel] = useState(settings.inference_model);
  const [key, setKey] = useState("");
  const [quota, setQuota] = useState(String(settings.job_quota));
  const url = base.trim().replace(/\/+$/, "").replace(/\/v1$/, "");
  const badUrl = url === "" || /^https?:\/\/[^\s/?#]+(\/[^\s?#]*)?$/i.test(url) ? null : "An address such as http://10.0.0.9:8000.";
  const jobs = Number(quota);
  const badQuota = quota.trim() !== "" && Number.isInteger(jobs) && jobs >= 0 ? null : "Enter a whole number.";
  const save = useMutation({
    mutationFn: () =>
      gpu.saveSettings({ enabled, base_url: url, inference_model: model.trim(), job_quota: jobs, ...(key === "" ? {} : { api_key: key }) }),
    onSuccess: (next) => {
      client.setQueryData(keys.gpuSettings, next);
      void client.invalidateQueries({ queryKey: keys.gpuInference });
      notify({ tone: "good", title: "Settings saved" });
    },
  });
  const isSame = enabled === settings.enabled && url === settings.base_url && model.trim() === settings.inference_model && key === "" && jobs === settings.job_quota;
  return (
    <Form
      className="flex max-w-2xl flex-col gap-5 p-5"
      onSubmit={(event) => {
        event.preventDefault();
        if (badUrl === null && badQuota === null && !isSame && !save.isPending) save.mutate();
      }}
    >
      <Switch label="People may submit jobs and ask models" isSelected={enabled} onChange={setEnabled} />
      <div className="grid items-start gap-4 sm:grid-cols-2">
        <Field label="Inference endpoint" value={base} onChange={setBase} mono placeholder="http://10.0.0.9:8000" autoComplete="off" description="Set by pairing. Any server that speaks OpenAI’s API, without /v1." error={badUrl} />
        <Field label="Model" value={model} onChange={setModel} mono placeholder="microsoft/Phi-3-mini-4k-instruct" autoComplete="off" description="What the endpoint serves, for snippets and machines." />
        <Field label="Key of the endpoint" type="password" value={key} onChange={setKey} autoComplete="new-password" description="Kept as it is while this is empty. Nobody is shown it." />
        <Field label="Jobs per member" value={quota} onChange={setQuota} inputMode="numeric" description="Queued and running at a time. Administrators have no such limit." error={badQuota} />
      </div>
      {save.isError ? <InlineError error={save.error} /> : null}
      <div>
        <Button kind="primary" type="submit" isPending={save.isPending} pendingLabel="Saving" disabledReason={badUrl ?? badQuota ?? (isSame ? "Nothing was changed." : null)}>
          Save settings
        </Button>
      </div>
    </Form>
  );
}
