import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { ApiError } from "~/api/client";
import { useWorkPoll } from "~/api/events";
import { queries } from "~/api/queries";
import type { Sandbox } from "~/api/workloads";
import { Page } from "~/app/page";
import { useTenant } from "~/app/tenant";
import { TEXT_LINK } from "~/features/auth/frame";
import { FileBrowser } from "~/features/work/files";
import { useLease } from "~/features/work/lease";
import { Logs } from "~/features/work/logs";
import { ConditionList, EndpointList, LabelList, resourceText, StaleNote, WorkErrorPanel, WorkState } from "~/features/work/parts";
import { isActive, sandboxRefusal, startText, trouble } from "~/features/work/rules";
import { SessionTerminal } from "~/features/work/session-terminal";
import { Button, ButtonLink } from "~/ui/button";
import { CodeBlock } from "~/ui/code";
import { Copyable } from "~/ui/copy";
import { Facts, type Fact } from "~/ui/facts";
import { until } from "~/ui/format";
import { ChevronDown } from "~/ui/icons";
import { Segments } from "~/ui/segments";
import { Bone, Panel } from "~/ui/states";
import { Badge, Notice } from "~/ui/status";
import { Tabs } from "~/ui/tabs";
import { Age, useNow } from "~/ui/time";
import { SandboxMenu, useStop } from "./actions";
import { Commands } from "./commands";
import { imageName, imageOf, sandboxName } from "./name";
import { Preview } from "./preview";
import { ScreenView } from "./screen-view";
import { snippetsFor } from "./snippets";

const route = getRouteApi("/session/work/sandboxes/$sandboxId");
const MOVING_MS = 1_000;

export function SandboxPage() {
  const { sandboxId } = route.useParams();
  const tenant = useTenant();
  const poll = useWorkPoll();
  const { data: sandbox, error, isError, refetch } = useQuery({
    ...queries.sandbox(tenant, sandboxId),
    refetchInterval: (query) => {
      const state = query.state.data?.status.lifecycleState;
      return state === "starting" || state === "stopping" ? Math.min(poll, MOVING_MS) : poll;
    },
  });
  const gone = isError && error instanceof ApiError && error.status === 404;
  if (sandbox === undefined || gone) {
    return (
      <Page title="Sandbox">
        {isError ? (
          <WorkErrorPanel error={error} title="The sandbox could not be loaded" {...(gone ? {} : { onRetry: () => void refetch() })}>
            <ButtonLink to="/sandboxes">All sandboxes</ButtonLink>
          </WorkErrorPanel>
        ) : (
          <div role="status" aria-label="Loading sandbox" className="grid gap-4 lg:grid-cols-[minmax(0,1.6fr)_minmax(0,1fr)]">
            <Bone className="h-96 w-full" />
            <Bone className="h-96 w-full" />
          </div>
        )}
      </Page>
    );
  }
  return <SandboxView key={sandbox.metadata.id} sandbox={sandbox} stale={isError} />;
}

function SandboxView({ sandbox, stale }: { sandbox: Sandbox; stale: boolean }) {
  const navigate = useNavigate();
  const { tenantId, id } = sandbox.metadata;
  const stop = useStop(sandbox);
  const { lifecycleState } = sandbox.status;
  const isDesktop = sandbox.spec.profile === "desktop";
  const lease = useLease(tenantId, { sandbox: { id } }, isDesktop ? ["stdio", "files", "page"] : ["stdio", "files"]);
  const isOver = lifecycleState === "stopped" || lifecycleState === "failed";
  // Of what is over the log is of most interest.
  const [tab, setTab] = useState(isOver ? "logs" : "facts");
  const name = sandboxName(sandbox);
  const image = imageOf(sandbox);
  const active = isActive(lifecycleState);
  const why = trouble(sandbox.status);
  const started = startText(sandbox.status);

  return (
    <Page
      title={name}
      lead={
        <span className="flex flex-wrap items-center gap-x-4 gap-y-1 text-sm">
          <WorkState state={lifecycleState} />
          {image !== null ? <code className="font-mono">{imageName(image)}</code> : null}
          {started !== null ? <Badge tone={sandbox.status.start === "warm" ? "good" : "idle"}>{started}</Badge> : null}
          {sandbox.status.expiresAt != null && active ? <Remaining at={sandbox.status.expiresAt} /> : null}
        </span>
      }
      actions={
        <>
          <Button
            isPending={stop.isPending}
            pendingLabel="Stopping"
            disabledReason={sandboxRefusal(sandbox, "stop")}
            onPress={() => {
              stop.mutate();
            }}
          >
            Stop
          </Button>
          <SandboxMenu sandbox={sandbox} onDeleted={() => void navigate({ to: "/sandboxes" })}>
            <Button>
              Actions <ChevronDown />
            </Button>
          </SandboxMenu>
        </>
      }
    >
      {why !== null ? (
        <Notice tone={lifecycleState === "failed" ? "bad" : "wait"} title={lifecycleState === "failed" ? "It failed" : "It is not ready"} role="status">
          <p className="break-words">{why}</p>
        </Notice>
      ) : null}
      {isOver ? (
        <section aria-label="Terminal" className="rounded-lg border border-line bg-sunken px-4 py-3 text-sm text-muted">
          {sandboxRefusal(sandbox, "use")} Its terminal and files ended with it; its log stays until it is deleted.
        </section>
      ) : (
      <div className="grid min-w-0 gap-4 lg:h-[min(34rem,calc(100dvh-15rem))] lg:min-h-96 lg:grid-cols-[minmax(0,1.7fr)_minmax(0,1fr)]">
        <SessionTerminal label={name} session={lease.take} refusal={sandboxRefusal(sandbox, "use") === null ? sandboxRefusal(sandbox, "session") : sandboxRefusal(sandbox, "use")} className="max-lg:h-96" />
        <FileBrowser at={{ tenant: tenantId, sandbox: id }} refusal={sandboxRefusal(sandbox, "use")} className="max-lg:h-80" />
      </div>
      )}
      <Panel label="About this sandbox">
        <Tabs
          label="About this sandbox"
          value={tab}
          onChange={setTab}
          tabs={[
            { key: "facts", label: "Facts", content: <FactList sandbox={sandbox} /> },
            {
              key: "logs",
              label: "Log",
              // Another run of the process begins another log.
              content: <Logs key={active ? "live" : "ended"} source={{ tenant: tenantId, sandbox: id }} live={active} />,
            },
            { key: "commands", label: "Commands", content: <Commands sandbox={sandbox} /> },
            { key: "conditions", label: "Conditions", count: sandbox.status.conditions.length, content: <ConditionList conditions={sandbox.status.conditions} /> },
            { key: "ports", label: "Preview", count: sandbox.status.endpoints.length, content: <Preview sandbox={sandbox} /> },
            ...(isDesktop ? [{ key: "screen", label: "Screen", content: <ScreenView sandbox={sandbox} session={lease.take} /> }] : []),
            { key: "use", label: "From a program", content: <Snippets id={id} tenant={tenantId} /> },
          ]}
        />
      </Panel>
      {stale ? <StaleNote what="This page" /> : null}
    </Page>
  );
}

function Remaining({ at }: { at: string }) {
  const now = useNow(true);
  return (
    <span className="text-muted">
      stops <time dateTime={at}>{until(at, now)}</time>
    </span>
  );
}

function FactList({ sandbox }: { sandbox: Sandbox }) {
  const { metadata, status, spec } = sandbox;
  const image = imageOf(sandbox);
  const { owner, process } = spec.sandbox;
  const allow = spec.sandbox.network?.egress?.allow ?? [];
  const left: Fact[] = [
    { label: "Id", value: <Copyable text={metadata.id} label="Copy sandbox id" /> },
    { label: "Image", value: image === null ? <span className="text-muted">not shown</span> : <Copyable text={image} label="Copy image" /> },
    ...(status.imageDigest != null ? [{ label: "Digest", value: <Copyable text={status.imageDigest} shown={`${status.imageDigest.slice(0, 19)}…`} label="Copy digest" /> }] : []),
    { label: "Profile", value: spec.profile },
    { label: "Host", value: <code className="font-mono text-sm">{status.host ?? "–"}</code> },
    { label: "Start", value: startText(status) ?? <span className="text-muted">not yet</span> },
    ...(owner?.kind === "service" && owner.serviceName !== undefined
      ? [
          {
            label: "Service",
            value: (
              <Link to="/services/$serviceName" params={{ serviceName: owner.serviceName }} className={TEXT_LINK}>
                {owner.serviceName}
              </Link>
            ),
          },
        ]
      : []),
    { label: "Created", value: <Age at={metadata.createdAt} /> },
  ];
  const right: Fact[] = [
    { label: "Resources", value: <span className="tabular">{resourceText(spec.sandbox.resources)}</span> },
    { label: "Process", value: <span className="text-muted">{processText(process)}</span> },
    { label: "Health", value: status.health },
    { label: "Restarts", value: <span className="tabular">{status.restartCount ?? 0}</span> },
    ...(status.exitCode != null ? [{ label: "Exit code", value: <code className="font-mono">{status.exitCode}</code> }] : []),
    { label: "Endpoints", value: <EndpointList endpoints={status.endpoints} /> },
    { label: "May reach", value: allow.length === 0 ? <span className="text-muted">nothing</span> : allow.map((rule) => `${rule.host}:${rule.port}`).join(", ") },
    { label: "Labels", value: <LabelList labels={metadata.labels} /> },
  ];
  return (
    <div className="grid items-start gap-x-10 px-4 py-1 max-lg:divide-y max-lg:divide-line lg:grid-cols-2">
      <Facts items={left} aligned />
      <Facts items={right} aligned />
    </div>
  );
}

function processText(process: Sandbox["spec"]["sandbox"]["process"]): string {
  if (process === undefined) return "the image's own";
  const parts = [
    process.argv === undefined || process.argv.valueCount === 0 ? "the image's own" : `${process.argv.valueCount} sealed arguments`,
    process.environment === undefined || process.environment.valueCount === 0 ? null : `${process.environment.valueCount} sealed variables`,
    process.secrets === undefined || process.secrets.length === 0 ? null : `secrets ${process.secrets.map((each) => each.secret).join(", ")}`,
    process.user === undefined ? null : `as ${process.user}`,
    process.cwd === undefined ? null : `in ${process.cwd}`,
  ];
  return parts.filter((part) => part !== null).join(", ");
}

const KINDS = [
  { key: "cli", label: "CLI" },
  { key: "sdk", label: "SDK" },
  { key: "curl", label: "curl" },
] as const;

function Snippets({ id, tenant }: { id: string; tenant: string }) {
  const [kind, setKind] = useState<"cli" | "sdk" | "curl">("cli");
  const text = snippetsFor(id, window.location.origin, tenant)[kind];
  return (
    <div className="flex flex-col items-start gap-3 p-4">
      <Segments label="How" options={KINDS} value={kind} onChange={setKind} />
      <CodeBlock text={text} label={`${KINDS.find((item) => item.key === kind)?.label ?? ""} snippet`} className="w-full" />
    </div>
  );
}
