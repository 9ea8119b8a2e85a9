import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { ApiError } from "~/api/client";
import { useWorkPoll } from "~/api/events";
import { queries } from "~/api/queries";
import type { Service } from "~/api/workloads";
import { Page } from "~/app/page";
import { useTenant } from "~/app/tenant";
import { TEXT_LINK } from "~/features/auth/frame";
import { Logs } from "~/features/work/logs";
import { ConditionList, EndpointList, LabelList, resourceText, StaleNote, WorkErrorPanel, WorkState } from "~/features/work/parts";
import { isActive, serviceRefusal, trouble } from "~/features/work/rules";
import { Button, ButtonLink } from "~/ui/button";
import { CodeBlock } from "~/ui/code";
import { Copyable } from "~/ui/copy";
import { Facts, type Fact } from "~/ui/facts";
import { ChevronDown } from "~/ui/icons";
import { Bone, Panel } from "~/ui/states";
import { Notice } from "~/ui/status";
import { Tabs } from "~/ui/tabs";
import { Age } from "~/ui/time";
import { ServiceMenu, useServiceVerb } from "./actions";
import { backendText, kindText, toText } from "./model";

const route = getRouteApi("/session/work/services/$serviceName");
const MOVING_MS = 1_000;

export function ServicePage() {
  const { serviceName } = route.useParams();
  const tenant = useTenant();
  const poll = useWorkPoll();
  const { data: service, error, isError, refetch } = useQuery({
    ...queries.service(tenant, serviceName),
    refetchInterval: (query) => {
      const state = query.state.data?.status.lifecycleState;
      return state === "starting" || state === "stopping" ? Math.min(poll, MOVING_MS) : poll;
    },
  });
  const gone = isError && error instanceof ApiError && error.status === 404;
  if (service === undefined || gone) {
    return (
      <Page title={serviceName}>
        {isError ? (
          <WorkErrorPanel error={error} title="The service could not be loaded" {...(gone ? {} : { onRetry: () => void refetch() })}>
            <ButtonLink to="/services">All services</ButtonLink>
          </WorkErrorPanel>
        ) : (
          <div role="status" aria-label="Loading service" className="flex flex-col gap-4">
            <Bone className="h-40 w-full" />
            <Bone className="h-64 w-full" />
          </div>
        )}
      </Page>
    );
  }
  return <ServiceView service={service} stale={isError} />;
}

function ServiceView({ service, stale }: { service: Service; stale: boolean }) {
  const navigate = useNavigate();
  const verb = useServiceVerb(service);
  const [tab, setTab] = useState("conditions");
  const { metadata, status, spec } = service;
  const isSandbox = spec.backend.kind === "sandbox" || status.backend === "sandbox";
  const active = isActive(status.lifecycleState);
  const why = trouble(status);
  const main = active ? ("stop" as const) : ("start" as const);
  return (
    <Page
      title={metadata.name}
      lead={
        <span className="flex flex-wrap items-center gap-x-4 gap-y-1 text-sm">
          <WorkState state={status.lifecycleState} />
          <span>{kindText(spec.backend)}</span>
          <code className="font-mono">{backendText(spec.backend)}</code>
        </span>
      }
      actions={
        <>
          {isSandbox ? (
            <>
              <Button
                kind={main === "start" ? "primary" : "default"}
                isPending={verb.isPending}
                disabledReason={serviceRefusal(service, main)}
                onPress={() => {
                  verb.mutate(main);
                }}
              >
                {main === "start" ? "Start" : "Stop"}
              </Button>
              <Button
                disabledReason={serviceRefusal(service, "restart")}
                isPending={verb.isPending}
                onPress={() => {
                  verb.mutate("restart");
                }}
              >
                Restart
              </Button>
            </>
          ) : null}
          <ServiceMenu service={service} onDeleted={() => void navigate({ to: "/services" })}>
            <Button>
              Actions <ChevronDown />
            </Button>
          </ServiceMenu>
        </>
      }
    >
      {why !== null ? (
        <Notice tone={status.lifecycleState === "failed" ? "bad" : "wait"} title={status.lifecycleState === "failed" ? "It failed" : "It is not ready"} role="status">
          <p className="break-words">{why}</p>
        </Notice>
      ) : null}
      <FactGrid service={service} />
      <Panel label="About this service">
        <Tabs
          label="About this service"
          value={tab}
          onChange={setTab}
          tabs={[
            { key: "conditions", label: "Conditions", count: status.conditions.length, content: <ConditionList conditions={status.conditions} /> },
            ...(isSandbox
              ? [
                  {
                    key: "logs",
                    label: "Log",
                    content: <Logs key={status.sandboxId ?? "none"} source={{ tenant: metadata.tenantId, service: metadata.name }} live={active} />,
                  },
                ]
              : []),
            {
              key: "definition",
              label: "Definition",
              content: (
                <div className="flex flex-col items-start gap-3 p-4">
                  <p className="max-w-prose text-sm text-muted">Arguments and values of variables are sealed and not part of what is shown.</p>
                  <CodeBlock text={toText(service)} label="definition" className="w-full" />
                  <ButtonLink to="/services/$serviceName/edit" params={{ serviceName: metadata.name }}>
                    Change definition
                  </ButtonLink>
                </div>
              ),
            },
          ]}
        />
      </Panel>
      {stale ? <StaleNote what="This page" /> : null}
    </Page>
  );
}

function FactGrid({ service }: { service: Service }) {
  const { metadata, status, spec } = service;
  const left: Fact[] = [
    { label: "Endpoints", value: <EndpointList endpoints={status.endpoints} /> },
    { label: "Health", value: status.health },
    {
      label: "Sandbox",
      value:
        status.sandboxId != null ? (
          <span className="flex flex-wrap items-center gap-x-3">
            <Copyable text={status.sandboxId} shown={`…${status.sandboxId.slice(-6)}`} label="Copy sandbox id" />
            <Link to="/sandboxes/$sandboxId" params={{ sandboxId: status.sandboxId }} className={TEXT_LINK}>
              Terminal and files
            </Link>
          </span>
        ) : (
          <span className="text-muted">none runs</span>
        ),
    },
    { label: "Restarts", value: <span className="tabular">{status.restartCount ?? 0}</span> },
  ];
  const right: Fact[] = [
    {
      label: "Generation",
      value: (
        <span className="tabular">
          {metadata.generation}
          {status.observedGeneration !== undefined && status.observedGeneration !== metadata.generation ? <span className="text-muted">, running {status.observedGeneration}</span> : null}
        </span>
      ),
    },
    { label: "Source", value: metadata.source === "staticCatalog" ? "a Compose file" : "the API" },
    ...(spec.backend.kind === "sandbox" ? [{ label: "Resources", value: <span className="tabular">{resourceText(spec.backend.sandbox.resources)}</span> }] : []),
    { label: "Labels", value: <LabelList labels={metadata.labels} /> },
    { label: "Created", value: <Age at={metadata.createdAt} /> },
  ];
  return (
    <div className="grid items-start gap-x-10 max-lg:divide-y max-lg:divide-line lg:grid-cols-2">
      <Facts items={left} aligned />
      <Facts items={right} aligned />
    </div>
  );
}
