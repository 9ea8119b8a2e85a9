import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { Label } from "react-aria-components/Label";
import { RadioGroup } from "react-aria-components/RadioGroup";
import { ApiError } from "~/api/client";
import { queries } from "~/api/queries";
import { work, type Policy, type Service, type WriteService } from "~/api/workloads";
import { Page } from "~/app/page";
import { InlineError } from "~/app/problem";
import { useTenant } from "~/app/tenant";
import { isActive } from "~/features/work/rules";
import { WorkErrorPanel } from "~/features/work/parts";
import { Button, ButtonLink } from "~/ui/button";
import { ChoiceCard, ChoiceDot } from "~/ui/choice";
import { Combo } from "~/ui/combo";
import { cx } from "~/ui/cx";
import { Field } from "~/ui/field";
import { Segments } from "~/ui/segments";
import { Select } from "~/ui/select";
import { Bone } from "~/ui/states";
import { Notice } from "~/ui/status";
import { useKeepService } from "./actions";
import { diff, draftProblems, EMPTY, isSealed, nameProblem, OPEN, parseText, PROVIDERS, toBackend, toText, type Kind, type ServiceDraft } from "./model";

const KINDS: readonly { key: Kind; label: string; text: string }[] = [
  { key: "sandbox", label: "Sandbox", text: "An image that Nimbus runs, supervises and restarts." },
  { key: "external", label: "External", text: "An address elsewhere whose health is watched." },
  { key: "builtIn", label: "Built in", text: "Something that Nimbus itself provides, by name." },
];

const EDITORS = [
  { key: "form", label: "Form" },
  { key: "json", label: "JSON" },
] as const;

function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function CreateServicePage() {
  const tenant = useTenant();
  const navigate = useNavigate();
  const keep = useKeepService();
  const [editor, setEditor] = useState<"form" | "json">("form");
  const [draft, setDraft] = useState<ServiceDraft>(EMPTY);
  const [text, setText] = useState("");
  const [tried, setTried] = useState(false);
  const [starts, setStarts] = useState<"yes" | "no">("yes");
  const { data: services } = useQuery(queries.services(tenant));
  const taken = services?.some((service) => service.metadata.name === draft.name) ?? false;
  const change = (part: Partial<ServiceDraft>) => {
    setDraft((before) => ({ ...before, ...part }));
  };
  const found = draftProblems(draft);
  if (taken) found.name = "There is a service of this name.";
  const shown = tried ? found : taken ? { name: found.name } : {};
  const parsed = parseText(text);
  const name = nameProblem(draft.name);

  const create = useMutation({
    mutationFn: async (body: WriteService) => {
      const made = await work.createService(tenant, body, randomKey());
      keep(made);
      // The definition is there; whether it starts is told on its page.
      if (starts === "yes" && made.status.backend !== "external" && made.status.backend !== "builtIn") keep(await work.serviceVerb(tenant, made.metadata.name, "start").catch(() => made));
      return made;
    },
    onSuccess: (made) => void navigate({ to: "/services/$serviceName", params: { serviceName: made.metadata.name } }),
  });

  const submit = () => {
    setTried(true);
    if (create.isPending || taken || name !== null) return;
    if (editor === "json") {
      if (parsed.ok) create.mutate({ metadata: { name: draft.name, ...(parsed.labels === null ? {} : { labels: parsed.labels }) }, spec: { backend: parsed.backend } });
      return;
    }
    if (Object.keys(found).length > 0) return;
    create.mutate({ metadata: { name: draft.name }, spec: { backend: toBackend(draft) } });
  };

  return (
    <Page title="Create service" lead="A name that other code may depend on, with what stands behind it." narrow>
      <Form
        className="flex flex-col gap-6"
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        <Field label="Name" value={draft.name} onChange={(value) => { change({ name: value }); }} mono autoFocus autoComplete="off" maxLength={63} placeholder="worker" description="What others depend on. It cannot be changed later." error={shown.name} />
        <div>
        <Segments
          label="Editor"
          options={EDITORS}
          value={editor}
          onChange={(next) => {
            // What was filled in goes on as text; text does not go back into the form.
            if (next === "json" && text === "") setText(JSON.stringify({ labels: {}, backend: toBackend(draft) }, null, 2));
            setEditor(next);
          }}
        />
        </div>
        {editor === "form" ? (
          <DraftForm draft={draft} change={change} problems={shown} />
        ) : (
          <Field label="Definition" value={text} onChange={setText} mono rows={18} error={parsed.ok || text === "" ? null : parsed.problem} description="Labels and the backend, as the API takes them." />
        )}
        {draft.kind === "sandbox" ? (
          <Select tall
            label="Afterwards"
            options={[
              { key: "yes", label: "Start it at once" },
              { key: "no", label: "Leave it stopped" },
            ]}
            value={starts}
            onChange={setStarts}
            className="max-w-56"
          />
        ) : null}
        {create.isError ? <InlineError error={create.error} /> : null}
        <div className="flex flex-wrap gap-2">
          <Button kind="primary" size="lg" type="submit" isPending={create.isPending} pendingLabel="Creating" disabledReason={editor === "json" && !parsed.ok ? parsed.problem : null}>
            Create service
          </Button>
          <ButtonLink to="/services" kind="quiet" size="lg">
            Cancel
          </ButtonLink>
        </div>
      </Form>
    </Page>
  );
}

function DraftForm({ draft, change, problems }: { draft: ServiceDraft; change: (part: Partial<ServiceDraft>) => void; problems: Partial<Record<keyof ServiceDraft, string | undefined>> }) {
  return (
    <>
      <RadioGroup
        value={draft.kind}
        onChange={(value) => {
          change({ kind: KINDS.find((item) => item.key === value)?.key ?? "sandbox" });
        }}
        className="flex flex-col gap-2"
      >
        <Label className="text-sm font-medium">Backend</Label>
        <div className="grid gap-3 sm:grid-cols-3">
          {KINDS.map((item) => (
            <ChoiceCard key={item.key} value={item.key} className="gap-0.5">
              <span className="flex items-center justify-between gap-2">
                <span className="font-medium">{item.label}</span>
                <ChoiceDot />
              </span>
              <span className="text-xs text-muted">{item.text}</span>
            </ChoiceCard>
          ))}
        </div>
      </RadioGroup>
      {draft.kind === "sandbox" ? (
        <>
          <Combo label="Image" mono value={draft.image} onChange={(image) => { change({ image }); }} suggestions={[{ key: "postgres:16-alpine" }, { key: "redis:7-alpine" }, { key: "nginx:1-alpine" }]} placeholder="redis:7-alpine" error={problems.image} />
          <Field label="Command" mono value={draft.command} onChange={(command) => { change({ command }); }} autoComplete="off" description="Empty for the image's own." error={problems.command} />
          <Field label="Ports" mono value={draft.ports} onChange={(ports) => { change({ ports }); }} autoComplete="off" placeholder="8080/http, 5432/tcp" description="It counts as ready when the first one answers." error={problems.ports} />
        </>
      ) : draft.kind === "external" ? (
        <>
          <Field label="Address" mono value={draft.url} onChange={(url) => { change({ url }); }} autoComplete="off" placeholder="https://db.example.org:8443" error={problems.url} />
          <Field label="Health path" mono value={draft.healthPath} onChange={(healthPath) => { change({ healthPath }); }} autoComplete="off" description="Asked for every 30 s; a 2xx answer is healthy." error={problems.healthPath} />
        </>
      ) : (
        <Select tall label="Provider" options={PROVIDERS} value={PROVIDERS.find((item) => item.key === draft.provider)?.key ?? "loadBalancer"} onChange={(provider) => { change({ provider }); }} className="max-w-64" />
      )}
    </>
  );
}

const route = getRouteApi("/session/work/services/$serviceName/edit");

export function EditServicePage() {
  const { serviceName } = route.useParams();
  const tenant = useTenant();
  // What is being edited must not change under the hands: it is read once, and compared when it is saved.
  const { data: service, isError, error, refetch } = useQuery({ ...queries.service(tenant, serviceName), refetchOnWindowFocus: false });
  const about = useQuery(queries.tenant(tenant));
  return (
    <Page title={`Change ${serviceName}`} lead="The whole definition is replaced; what runs is replaced if it must be.">
      {service === undefined || about.isPending ? (
        isError ? (
          <WorkErrorPanel error={error} title="The service could not be loaded" onRetry={() => void refetch()} />
        ) : (
          <div role="status" aria-label="Loading definition">
            <Bone className="h-80 w-full" />
          </div>
        )
      ) : (
        <EditForm first={service} policy={about.data?.policy ?? OPEN} />
      )}
    </Page>
  );
}

function EditForm({ first, policy }: { first: Service; policy: Policy }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const keep = useKeepService();
  const { tenantId, name } = first.metadata;
  const [base, setBase] = useState(first);
  const [text, setText] = useState(() => toText(first, policy));
  const [theirs, setTheirs] = useState<Service | null>(null);
  const parsed = parseText(text);

  const save = useMutation({
    mutationFn: (generation: number) => {
      if (!parsed.ok) throw new Error(parsed.problem);
      return work.updateService(tenantId, name, { metadata: { name, generation, ...(parsed.labels === null ? {} : { labels: parsed.labels }) }, spec: { backend: parsed.backend } });
    },
    onSuccess: (service) => {
      keep(service);
      void navigate({ to: "/services/$serviceName", params: { serviceName: name } });
    },
    onError: async (error) => {
      if (!(error instanceof ApiError && error.status === 412)) return;
      setTheirs(await client.query({ ...queries.service(tenantId, name), staleTime: 0 }).catch(() => null));
    },
  });
  const stale = save.error instanceof ApiError && save.error.status === 412;
  const changed = text !== toText(base, policy);

  return (
    <Form
      className="flex flex-col gap-5"
      onSubmit={(event) => {
        event.preventDefault();
        if (parsed.ok && !save.isPending) save.mutate(base.metadata.generation);
      }}
    >
      {isSealed(base) ? (
        <Notice tone="wait" title="Arguments and variables are sealed">
          <p>They cannot be shown, so they are not in the text below. Type them again, or the service runs without them.</p>
        </Notice>
      ) : null}
      {stale && theirs !== null ? (
        <Conflict
          mine={text}
          base={base}
          theirs={theirs}
          policy={policy}
          isPending={save.isPending}
          onTakeTheirs={() => {
            setBase(theirs);
            setText(toText(theirs, policy));
            setTheirs(null);
            save.reset();
          }}
          onKeepMine={() => {
            setBase(theirs);
            setTheirs(null);
            save.mutate(theirs.metadata.generation);
          }}
        />
      ) : null}
      <Field
        label={`Definition, from generation ${base.metadata.generation}`}
        value={text}
        onChange={setText}
        mono
        rows={Math.min(30, Math.max(12, text.split("\n").length + 1))}
        error={parsed.ok ? null : parsed.problem}
        description={isActive(base.status.lifecycleState) ? "It runs: changes of what is launched replace the sandbox behind it." : "It does not run."}
      />
      {save.isError && !stale ? <InlineError error={save.error} /> : null}
      <div className="flex flex-wrap gap-2">
        <Button kind="primary" size="lg" type="submit" isPending={save.isPending} pendingLabel="Saving" disabledReason={!parsed.ok ? parsed.problem : !changed ? "Nothing was changed yet." : stale ? "Decide above which version shall be kept." : null}>
          Save as generation {base.metadata.generation + 1}
        </Button>
        <ButtonLink to="/services/$serviceName" params={{ serviceName: name }} kind="quiet" size="lg">
          Cancel
        </ButtonLink>
      </div>
    </Form>
  );
}

const MARK = { same: " ", mine: "−", theirs: "+" } as const;

/** Somebody else was faster: what they did, and whose version shall be kept. */
function Conflict({ mine, base, theirs, policy, isPending, onTakeTheirs, onKeepMine }: { mine: string; base: Service; theirs: Service; policy: Policy; isPending: boolean; onTakeTheirs: () => void; onKeepMine: () => void }) {
  const lines = diff(mine, toText(theirs, policy));
  return (
    <div role="alert" className="flex flex-col gap-3 rounded-lg border border-wait-line bg-wait-faint p-4 text-sm">
      <div className="flex flex-col gap-1">
        <h2 className="text-base font-semibold text-wait-strong">Somebody else changed it meanwhile</h2>
        <p>
          You began with generation {base.metadata.generation}; it is at {theirs.metadata.generation} now. Nothing of yours was saved, and nothing of it is lost.
        </p>
      </div>
      <div className="flex flex-col gap-1.5">
        <p className="text-xs text-muted">
          Lines with − are only in yours, lines with + only in theirs.
        </p>
        <pre tabIndex={0} role="region" aria-label="Differences" className="max-h-80 overflow-auto rounded border border-line bg-panel py-2 font-mono text-xs leading-5">
          {lines.map((line, index) => (
            <span key={index} className={cx("block px-3", line.kind === "mine" && "bg-bad-faint text-bad-strong", line.kind === "theirs" && "bg-good-faint text-good-strong")}>
              {MARK[line.kind]} {line.text}
              {"\n"}
            </span>
          ))}
        </pre>
      </div>
      <div className="flex flex-wrap gap-2">
        <Button onPress={onTakeTheirs}>Go on from theirs</Button>
        <Button onPress={onKeepMine} isPending={isPending} pendingLabel="Saving">
          Save mine over it
        </Button>
      </div>
    </div>
  );
}
