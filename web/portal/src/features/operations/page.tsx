import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { Button as AriaButton } from "react-aria-components/Button";
import { Disclosure, DisclosurePanel } from "react-aria-components/Disclosure";
import { Heading } from "react-aria-components/Heading";
import { useState } from "react";
import { usePollInterval } from "~/api/events";
import { ApiError } from "~/api/client";
import { queries } from "~/api/queries";
import type { Operation } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState, Reference } from "~/app/problem";
import { TEXT_LINK } from "~/features/auth/frame";
import { sshCommand } from "~/features/machines/ssh";
import { ButtonLink } from "~/ui/button";
import { CommandLine, Copyable } from "~/ui/copy";
import { Facts } from "~/ui/facts";
import { duration, elapsed, sentence, shortId } from "~/ui/format";
import { ChevronRight } from "~/ui/icons";
import { Bone, Panel } from "~/ui/states";
import { Notice, StatusDot } from "~/ui/status";
import { Age, useNow } from "~/ui/time";
import { PrivateKeyPanel } from "./private-key";
import { isActive, operationTitle, took } from "./steps";
import { Timeline } from "./timeline";

const route = getRouteApi("/session/operations/$operationId");

export function OperationPage() {
  const { operationId } = route.useParams();
  const poll = usePollInterval();
  const { data: operation, error, isError, refetch } = useQuery({ ...queries.operation(operationId), refetchInterval: poll });
  if (operation === undefined) {
    return (
      <Page title="Operation" narrow>
        <Panel>
          {isError ? (
            <ErrorState
              error={error}
              title="The operation could not be loaded"
              {...(error instanceof ApiError && error.status === 404 ? {} : { onRetry: () => void refetch() })}
            >
              <ButtonLink to="/machines">Go to machines</ButtonLink>
            </ErrorState>
          ) : (
            <div role="status" aria-label="Loading operation" className="flex flex-col gap-4 p-5">
              {Array.from({ length: 9 }, (_, row) => (
                <Bone key={row} className="h-4 w-2/3" />
              ))}
            </div>
          )}
        </Panel>
      </Page>
    );
  }
  return <OperationView operation={operation} />;
}

export function OperationView({ operation }: { operation: Operation }) {
  const active = isActive(operation);
  const now = useNow(active);
  const title = operationTitle(operation);
  const result = operation.result;
  const provision = operation.type === "vm.provision";
  // The server says that the key is gone as soon as it was taken; the page that took it goes on showing it.
  const [keyTaken, setKeyTaken] = useState(false);
  const ready = provision && operation.state === "succeeded" && result != null;
  const command = ready ? sshCommand({ username: result.username, ip: result.ip, key_name: result.key_name ?? null }) : null;

  return (
    <Page title={title} narrow lead={lead(operation, now)}>
      {command !== null ? (
        <section aria-label="Connect" className="flex flex-col gap-2">
          <CommandLine command={command} label="SSH command" large />
        </section>
      ) : null}
      {ready && result.warning != null && result.warning !== "" ? (
        <Notice tone="wait" title="Ready, with a remark">
          <p>{result.warning}</p>
        </Notice>
      ) : null}
      {ready && (result.has_private_key || keyTaken) ? (
        <PrivateKeyPanel
          operationId={operation.id}
          keyName={result.key_name ?? "nimbus"}
          onTaken={() => {
            setKeyTaken(true);
          }}
        />
      ) : null}
      {operation.state === "failed" ? <Failure operation={operation} /> : null}

      <div className="grid items-start gap-5 lg:grid-cols-[minmax(0,1fr)_17rem]">
        <Panel label="Steps">
          <div className="px-5 py-3.5">
            <Timeline operation={operation} />
          </div>
        </Panel>
        <div className="flex flex-col gap-4">
          <Facts
            items={[
              { label: "State", value: <OperationState operation={operation} /> },
              ...(result?.ip != null ? [{ label: "Address", value: <Copyable text={result.ip} label="Copy address" /> }] : []),
              ...(result?.node != null ? [{ label: "Node", value: <code className="font-mono text-sm">{result.node}</code> }] : []),
              ...(result?.vmid != null ? [{ label: "VMID", value: <code className="font-mono text-sm">{result.vmid}</code> }] : []),
              ...(active ? [] : [{ label: "Started", value: <Age at={operation.started_at ?? operation.created_at} /> }]),
              { label: active ? "Running for" : "Took", value: <span className="tabular">{active ? elapsed(took(operation, now)) : duration(took(operation, now))}</span> },
              { label: "Operation", value: <Copyable text={operation.id} shown={shortId(operation.id)} label="Copy operation id" /> },
            ]}
          />
          {operation.trace_id != null ? (
            <Link to="/operations/$operationId/trace" params={{ operationId: operation.id }} className={`${TEXT_LINK} text-sm`}>
              {active ? "See where the time goes" : "See where the time went"}
            </Link>
          ) : null}
        </div>
      </div>

      {!active ? (
        <div className="flex flex-wrap gap-2">
          {operation.type !== "vm.delete" && !(provision && operation.state === "failed") ? (
            <ButtonLink
              to="/machines/$machineId"
              params={{ machineId: operation.result?.id ?? operation.target_id }}
              kind={ready && !result.has_private_key ? "primary" : "default"}
            >
              Open machine
            </ButtonLink>
          ) : null}
          <ButtonLink to="/machines">All machines</ButtonLink>
        </div>
      ) : null}
    </Page>
  );
}

function lead(operation: Operation, now: number) {
  switch (operation.state) {
    case "queued":
      return "Waiting for its turn. You may leave this page; the work goes on.";
    case "running": {
      const long = took(operation, now) > 90_000;
      return long
        ? "Still working. It takes longer than usual; you may leave this page, the work goes on."
        : "You may leave this page; the work goes on, and a reload shows the same.";
    }
    case "succeeded":
      return `Done in ${duration(took(operation, now))}.`;
    case "failed":
      return operation.steps.some((step) => step.state === "undone")
        ? "Everything that was made on the way has been taken back."
        : "Nothing else was changed.";
  }
}

export function OperationState({ operation }: { operation: Operation }) {
  switch (operation.state) {
    case "queued":
      return <StatusDot tone="idle">Waiting</StatusDot>;
    case "running":
      return (
        <StatusDot tone="info" moving>
          {operation.steps.some((step) => step.state === "undoing") ? "Undoing" : "Running"}
        </StatusDot>
      );
    case "succeeded":
      return <StatusDot tone="good">Done</StatusDot>;
    case "failed":
      return <StatusDot tone="bad">Failed</StatusDot>;
  }
}

/** The end of a task's log, folded: most readers need the sentence above only. */
function TaskLog({ lines }: { lines: readonly string[] }) {
  return (
    <Disclosure className="group/log">
      <Heading level={3}>
        <AriaButton slot="trigger" className="flex items-center gap-1.5 rounded-sm text-sm text-muted data-hovered:text-fg">
          <ChevronRight width={14} height={14} className="transition-transform duration-[120ms] group-data-expanded/log:rotate-90" />
          The end of the task’s log
        </AriaButton>
      </Heading>
      <DisclosurePanel>
        <pre
          tabIndex={0}
          role="region"
          aria-label="Log of the task"
          className="mt-2 max-h-52 overflow-auto rounded border border-line bg-sunken p-3 font-mono text-xs"
        >
          {lines.join("\n")}
        </pre>
      </DisclosurePanel>
    </Disclosure>
  );
}

function Failure({ operation }: { operation: Operation }) {
  const fault = operation.fault;
  const step = operation.steps.find((item) => item.state === "failed");
  const told = fault?.detail?.["log"];
  const log = Array.isArray(told) ? told.filter((line): line is string => typeof line === "string") : [];
  return (
    <Panel label="What went wrong" className="border-bad-line!">
      <div role="alert" className="flex flex-col gap-3 p-5">
        <div className="flex flex-col gap-1">
          <h2 className="font-semibold">{step ? `“${step.label}” failed` : "What happened"}</h2>
          <p className="break-words">{sentence(fault?.message ?? operation.message)}</p>
          {fault?.remediation ? <p className="text-muted">{fault.remediation.message}</p> : null}
        </div>
        {log.length > 0 ? <TaskLog lines={log} /> : null}
        <Reference code={fault?.code ?? null} requestId={fault?.requestId ?? null} />
        {operation.type === "vm.provision" ? (
          <div className="flex flex-wrap gap-2">
            <ButtonLink to="/machines/new" search={{ retry: true }} kind="primary">
              Try again
            </ButtonLink>
            <p className="self-center text-sm text-muted">What you typed is kept.</p>
          </div>
        ) : null}
      </div>
    </Panel>
  );
}
