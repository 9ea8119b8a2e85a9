import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { ApiError } from "~/api/client";
import { useWorkPoll } from "~/api/events";
import { queries } from "~/api/queries";
import type { WorkSession } from "~/api/workloads";
import { Page } from "~/app/page";
import { TEXT_LINK } from "~/features/auth/frame";
import { FileBrowser } from "~/features/work/files";
import { ConditionList, StaleNote, WorkErrorPanel } from "~/features/work/parts";
import { SessionTerminal } from "~/features/work/session-terminal";
import { Button, ButtonLink } from "~/ui/button";
import { CodeBlock } from "~/ui/code";
import { Copyable } from "~/ui/copy";
import { Facts } from "~/ui/facts";
import { exactTime } from "~/ui/format";
import { Bone, Panel } from "~/ui/states";
import { Badge } from "~/ui/status";
import { Age } from "~/ui/time";
import { Remaining, useClose } from "./list";
import { closeText, SessionStateDot } from "./state";
import { CHANNEL_TEXT, targetKind, targetName } from "./target";

const route = getRouteApi("/session/work/sessions/$sessionId");

export function SessionPage() {
  const { sessionId } = route.useParams();
  const poll = useWorkPoll();
  const { data: session, error, isError, refetch } = useQuery({ ...queries.session(sessionId), refetchInterval: poll });
  const gone = isError && error instanceof ApiError && error.status === 404;
  if (session === undefined || gone) {
    return (
      <Page title="Session">
        {isError ? (
          <WorkErrorPanel error={error} title="The session could not be loaded" {...(gone ? {} : { onRetry: () => void refetch() })}>
            <ButtonLink to="/sessions">All sessions</ButtonLink>
          </WorkErrorPanel>
        ) : (
          <div role="status" aria-label="Loading session">
            <Bone className="h-64 w-full" />
          </div>
        )}
      </Page>
    );
  }
  return <SessionView key={session.metadata.id} session={session} stale={isError} />;
}

function snippet(session: WorkSession): string {
  const { id, tenantId } = session.metadata;
  const channels = session.spec.channels;
  const lines = [`import { Nimbus } from "@nimbus/nimbus";`, "", `const nimbus = new Nimbus({ endpoint: "${window.location.origin}", tenantId: "${tenantId}" });`];
  if (channels.includes("stdio")) lines.push(`const stdio = await nimbus.sessions.stdio({ id: "${id}" });`);
  if (channels.includes("files")) lines.push(`const files = await nimbus.sessions.files({ id: "${id}" });`);
  if (channels.includes("cdp")) lines.push(`const url = await nimbus.sessions.cdpUrl({ id: "${id}" });`);
  if (channels.includes("page")) lines.push(`const page = await nimbus.sessions.page({ id: "${id}" });`);
  return lines.join("\n");
}

function SessionView({ session, stale }: { session: WorkSession; stale: boolean }) {
  const close = useClose(session);
  const { id } = session.metadata;
  const name = targetName(session);
  const isOpen = session.status.lifecycleState === "open";
  const refusal = isOpen ? null : "The session is over.";
  const carries = (channel: "stdio" | "files") => session.spec.channels.includes(channel);
  const { target } = session.spec;
  return (
    <Page
      title={`Session on ${name}`}
      lead={
        <span className="flex flex-wrap items-center gap-x-4 gap-y-1 text-sm">
          <SessionStateDot session={session} />
          {isOpen ? (
            <span>
              ends <Remaining at={session.status.expiresAt} />
            </span>
          ) : (
            <span>{closeText(session) ?? ""}</span>
          )}
        </span>
      }
      actions={
        <Button
          isPending={close.isPending}
          pendingLabel="Closing"
          disabledReason={refusal}
          onPress={() => {
            close.mutate();
          }}
        >
          Close session
        </Button>
      }
    >
      {isOpen && (carries("stdio") || carries("files")) ? (
        <div className={carries("stdio") && carries("files") ? "grid min-w-0 gap-4 lg:h-[28rem] lg:grid-cols-[minmax(0,1.7fr)_minmax(0,1fr)]" : "grid min-w-0 gap-4 lg:h-[28rem]"}>
          {carries("stdio") ? (
            <SessionTerminal
              label={name}
              session={(over) => (over === id ? Promise.reject(new Error("The session is over.")) : Promise.resolve(id))}
              refusal={null}
              className="max-lg:h-96"
            />
          ) : null}
          {carries("files") ? <FileBrowser at={{ session: id }} refusal={null} className="max-lg:h-80" /> : null}
        </div>
      ) : null}
      <div className="grid items-start gap-x-10 gap-y-6 lg:grid-cols-2">
        <section className="flex flex-col gap-2">
          <h2 className="font-semibold">Facts</h2>
          <Facts
            items={[
              {
                label: "Leads to",
                value:
                  "service" in target ? (
                    <Link to="/services/$serviceName" params={{ serviceName: target.service.name }} className={TEXT_LINK}>
                      {name}
                    </Link>
                  ) : (
                    <Link to="/sandboxes/$sandboxId" params={{ sandboxId: target.sandbox.id }} className={TEXT_LINK}>
                      {name}
                    </Link>
                  ),
              },
              { label: "Kind", value: targetKind(session) },
              {
                label: "Carries",
                value: (
                  <span className="flex flex-wrap gap-1">
                    {session.spec.channels.map((channel) => (
                      <Badge key={channel}>{CHANNEL_TEXT[channel].label.toLowerCase()}</Badge>
                    ))}
                  </span>
                ),
              },
              { label: "Opened", value: <Age at={session.metadata.createdAt} /> },
              { label: isOpen ? "Ends" : "Ended", value: exactTime(isOpen ? session.status.expiresAt : (session.status.closedAt ?? session.status.expiresAt)) },
              { label: "Id", value: <Copyable text={id} label="Copy session id" /> },
            ]}
          />
        </section>
        <section className="flex min-w-0 flex-col gap-2">
          <h2 className="font-semibold">From a program</h2>
          <CodeBlock text={snippet(session)} label="SDK snippet" />
          {session.status.conditions.length > 0 ? (
            <Panel label="Conditions">
              <ConditionList conditions={session.status.conditions} />
            </Panel>
          ) : null}
        </section>
      </div>
      {stale ? <StaleNote what="This page" /> : null}
    </Page>
  );
}
