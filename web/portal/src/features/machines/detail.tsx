import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { ApiError } from "~/api/client";
import { usePollInterval } from "~/api/events";
import { queries } from "~/api/queries";
import type { Machine, Operation } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { TEXT_LINK } from "~/features/auth/frame";
import { OperationState } from "~/features/operations/page";
import { operationTitle, isActive, took } from "~/features/operations/steps";
import { Timeline } from "~/features/operations/timeline";
import { PrivateKeyPanel } from "~/features/operations/private-key";
import { Button, ButtonLink } from "~/ui/button";
import { CommandLine, Copyable } from "~/ui/copy";
import { Facts } from "~/ui/facts";
import { duration, mib, shortId } from "~/ui/format";
import { ChevronDown, OsGlyph } from "~/ui/icons";
import { Bone, Panel } from "~/ui/states";
import { Notice } from "~/ui/status";
import { Age } from "~/ui/time";
import { MachineMenu, usePower } from "./actions";
import { osLabel, refusal } from "./rules";
import { sshCommand } from "./ssh";
import { MachineState } from "./state";

const route = getRouteApi("/session/machines/$machineId");

export function MachinePage() {
  const { machineId } = route.useParams();
  const poll = usePollInterval();
  const { data: machine, error, isError, refetch } = useQuery({ ...queries.machine(machineId), refetchInterval: poll });
  if (machine === undefined || (isError && error instanceof ApiError && error.status === 404)) {
    return (
      <Page title="Machine">
        <Panel>
          {isError ? (
            <ErrorState
              error={error}
              title="The machine could not be loaded"
              {...(error instanceof ApiError && error.status === 404 ? {} : { onRetry: () => void refetch() })}
            >
              <ButtonLink to="/machines">All machines</ButtonLink>
            </ErrorState>
          ) : (
            <div role="status" aria-label="Loading machine" className="flex flex-col gap-4 p-6">
              <Bone className="h-9 w-full" />
              <Bone className="h-4 w-1/2" />
              <Bone className="h-4 w-1/3" />
            </div>
          )}
        </Panel>
      </Page>
    );
  }
  return <MachineView machine={machine} />;
}

function MachineView({ machine }: { machine: Machine }) {
  const navigate = useNavigate();
  const poll = usePollInterval();
  const power = usePower(machine);
  const { data: operations } = useQuery({ ...queries.operations(), refetchInterval: poll });
  const { data: catalog } = useQuery(queries.catalog());
  const { data: current } = useQuery({
    ...queries.operation(machine.operation_id ?? ""),
    enabled: machine.operation_id != null,
    refetchInterval: poll,
  });

  const mine = (operations ?? []).filter((operation) => operation.target_id === machine.ID);
  const running = current && isActive(current) ? current : undefined;
  const tier = catalog?.tiers.find((item) => item.key === machine.tier);
  const command = sshCommand(machine);
  const provision = mine.find((operation) => operation.type === "vm.provision");
  const [keyTaken, setKeyTaken] = useState(false);
  const main = machine.status === "stopped" ? ("start" as const) : ("reboot" as const);

  return (
    <Page
      title={machine.hostname}
      lead={<MachineState machine={machine} />}
      actions={
        <>
          {machine.status === "running" || machine.status === "stopped" ? (
            <Button
              isPending={power.isPending}
              disabledReason={refusal(machine, main)}
              onPress={() => {
                power.mutate(main);
              }}
            >
              {main === "start" ? "Start" : "Reboot"}
            </Button>
          ) : null}
          <MachineMenu
            machine={machine}
            onDeleted={(operation) => void navigate({ to: "/operations/$operationId", params: { operationId: operation.id } })}
          >
            <Button>
              Actions <ChevronDown />
            </Button>
          </MachineMenu>
        </>
      }
    >
      {command !== null && machine.status !== "provisioning" && machine.status !== "failed" ? (
        <section aria-label="Connect" className="flex max-w-3xl flex-col gap-1.5">
          <CommandLine command={command} label="SSH command" large />
          {machine.status === "stopped" ? <p className="text-sm text-muted">Start the machine first; its address stays the same.</p> : null}
        </section>
      ) : null}
      {machine.error_msg != null && machine.error_msg !== "" ? (
        <div className="max-w-3xl">
          <Notice tone={machine.status === "failed" ? "bad" : "wait"} title={machine.status === "failed" ? "It could not be created" : "A remark from its creation"}>
            <p className="break-words">{machine.error_msg}</p>
          </Notice>
        </div>
      ) : null}
      {provision?.result != null && (provision.result.has_private_key || keyTaken) && provision.state === "succeeded" ? (
        <div className="max-w-3xl">
          <PrivateKeyPanel
            operationId={provision.id}
            keyName={provision.result.key_name ?? machine.key_name ?? "nimbus"}
            onTaken={() => {
              setKeyTaken(true);
            }}
          />
        </div>
      ) : null}
      <div className="grid items-start gap-x-10 gap-y-6 lg:grid-cols-[minmax(0,1fr)_minmax(0,1fr)]">
        {running ? (
          <section className="flex flex-col gap-2 lg:order-2">
            <h2 className="font-semibold">{operationTitle(running)}</h2>
            <Panel>
              <div className="px-5 py-3.5">
                <Timeline operation={running} />
              </div>
            </Panel>
          </section>
        ) : null}
        <section className="flex flex-col gap-2">
          <h2 className="font-semibold">Facts</h2>
          <Facts
            items={[
              { label: "Address", value: machine.ip != null ? <Copyable text={machine.ip} label="Copy address" /> : <span className="text-muted">none yet</span> },
              { label: "User", value: <Copyable text={machine.username} label="Copy user name" /> },
              {
                label: "Size",
                value: tier ? (
                  <span className="tabular">
                    {tier.vcpu} vCPU · {mib(tier.mem_mib)} · {tier.disk_gib} GiB <span className="text-muted">({tier.key})</span>
                  </span>
                ) : (
                  machine.tier
                ),
              },
              {
                label: "OS",
                value: (
                  <span className="flex items-center gap-2">
                    <OsGlyph os={machine.os_template} size={16} /> {osLabel(machine.os_template)}
                  </span>
                ),
              },
              { label: "Node", value: <code className="font-mono text-sm">{machine.node ?? "–"}</code> },
              { label: "VMID", value: <code className="font-mono text-sm">{machine.vmid ?? "–"}</code> },
              { label: "SSH key", value: machine.key_name != null ? <code className="font-mono text-sm">{machine.key_name}</code> : <span className="text-muted">your own</span> },
              { label: "Created", value: <Age at={machine.CreatedAt} /> },
              { label: "Id", value: <Copyable text={machine.ID} shown={shortId(machine.ID)} label="Copy machine id" /> },
            ]}
          />
        </section>
        {running === undefined && mine.length > 0 ? (
          <section className="flex flex-col gap-2">
            <h2 className="font-semibold">What happened to it</h2>
            <ul className="flex flex-col text-sm">
              {mine.slice(0, 8).map((operation) => (
                <OperationLine key={operation.id} operation={operation} />
              ))}
            </ul>
          </section>
        ) : null}
      </div>
    </Page>
  );
}

function OperationLine({ operation }: { operation: Operation }) {
  return (
    <li className="flex min-h-9 flex-wrap items-center gap-x-4 gap-y-0.5 border-b border-line py-1.5 last:border-b-0">
      <span className="w-20 shrink-0">
        <OperationState operation={operation} />
      </span>
      <Link to="/operations/$operationId" params={{ operationId: operation.id }} className="min-w-0 flex-1 truncate rounded-sm hover:underline">
        {operationTitle(operation)}
      </Link>
      {operation.finished_at != null ? <span className="tabular text-muted">{duration(took(operation, 0))}</span> : null}
      <span className="text-muted">
        <Age at={operation.created_at} />
      </span>
      {operation.trace_id != null ? (
        <Link to="/operations/$operationId/trace" params={{ operationId: operation.id }} className={TEXT_LINK}>
          Trace
        </Link>
      ) : null}
    </li>
  );
}
