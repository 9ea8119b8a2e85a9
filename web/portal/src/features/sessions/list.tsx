import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { CheckboxGroup } from "react-aria-components/CheckboxGroup";
import { Form } from "react-aria-components/Form";
import { Label } from "react-aria-components/Label";
import { useWorkPoll } from "~/api/events";
import { keys, queries } from "~/api/queries";
import { work, type Channel, type WorkSession } from "~/api/workloads";
import { Page } from "~/app/page";
import { explain, InlineError } from "~/app/problem";
import { useTenant } from "~/app/tenant";
import { StaleNote, WorkError } from "~/features/work/parts";
import { Button } from "~/ui/button";
import { Check } from "~/ui/choice";
import { Copyable } from "~/ui/copy";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Filter } from "~/ui/filter";
import { plural, until } from "~/ui/format";
import { PlusIcon } from "~/ui/icons";
import { Segments } from "~/ui/segments";
import { Select } from "~/ui/select";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { Badge } from "~/ui/status";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age, useNow } from "~/ui/time";
import { notify } from "~/ui/toast";
import { closeText, SessionStateDot } from "./state";
import { CHANNEL_TEXT, choices, targetKind, targetName } from "./target";

const route = getRouteApi("/session/work/sessions");

export function Remaining({ at }: { at: string }) {
  const now = useNow(true);
  return (
    <time dateTime={at} className="tabular">
      {until(at, now)}
    </time>
  );
}

const COLUMNS: ColumnDef<WorkSession>[] = [
  {
    id: "target",
    header: "Leads to",
    rowHeader: true,
    sort: targetName,
    phone: "title",
    cell: (session) => (
      <span className="flex min-w-0 items-center gap-2">
        <span className="max-w-56 truncate font-medium">{targetName(session)}</span>
        <span className="text-muted">{targetKind(session)}</span>
      </span>
    ),
  },
  { id: "state", header: "State", sort: (session) => session.status.lifecycleState, phone: "aside", cell: (session) => <SessionStateDot session={session} /> },
  {
    id: "channels",
    header: "Carries",
    phone: "line",
    cell: (session) => (
      <span className="flex flex-wrap gap-1">
        {session.spec.channels.map((channel) => (
          <Badge key={channel}>{channel}</Badge>
        ))}
      </span>
    ),
  },
  { id: "id", header: "Id", cell: (session) => <Copyable text={session.metadata.id} shown={`…${session.metadata.id.slice(-6)}`} label={`Copy id of session on ${targetName(session)}`} /> },
  {
    id: "ends",
    header: "Ends",
    sort: (session) => session.status.expiresAt,
    cell: (session) => <span className="text-muted">{session.status.lifecycleState === "open" ? <Remaining at={session.status.expiresAt} /> : (closeText(session) ?? "over")}</span>,
  },
  {
    id: "opened",
    header: "Opened",
    sort: (session) => -Date.parse(session.metadata.createdAt),
    cell: (session) => (
      <span className="text-muted">
        <Age at={session.metadata.createdAt} />
      </span>
    ),
  },
  { id: "actions", header: "Actions", hideHeader: true, phone: "end", className: "text-right", cell: (session) => (session.status.lifecycleState === "open" ? <CloseButton session={session} /> : null) },
];

export function useClose(session: WorkSession) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => work.closeSession(session.metadata.id, "client_close"),
    onSuccess: (closed) => {
      client.setQueryData<WorkSession>(keys.session(closed.metadata.id), closed);
      client.setQueryData<WorkSession[]>(keys.sessions(closed.metadata.tenantId), (list) => list?.map((item) => (item.metadata.id === closed.metadata.id ? closed : item)));
    },
    onError: (error) => {
      notify({ tone: "bad", title: "The session was not closed", text: explain(error).what });
    },
  });
}

function CloseButton({ session }: { session: WorkSession }) {
  const close = useClose(session);
  return (
    <Button
      size="sm"
      kind="quiet"
      aria-label={`Close session on ${targetName(session)}`}
      isPending={close.isPending}
      pendingLabel="Closing"
      onPress={() => {
        close.mutate();
      }}
    >
      Close
    </Button>
  );
}

function matches(session: WorkSession, needle: string): boolean {
  const text = [targetName(session), targetKind(session), session.metadata.id, session.status.lifecycleState, ...session.spec.channels].join(" ").toLowerCase();
  return needle
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

export function SessionsPage() {
  const tenant = useTenant();
  const navigate = useNavigate();
  const poll = useWorkPoll();
  const { target } = route.useSearch();
  const [needle, setNeedle] = useState("");
  const [shown, setShown] = useState<"open" | "all">("open");
  const [opening, setOpening] = useState(target !== undefined);
  const { data: sessions, error, refetch, isError } = useQuery({ ...queries.sessions(tenant), refetchInterval: poll });
  const open = (sessions ?? []).filter((session) => session.status.lifecycleState === "open").length;
  const rows = useMemo(
    () => (sessions ?? []).filter((session) => (shown === "all" || session.status.lifecycleState === "open") && matches(session, needle.trim())),
    [sessions, shown, needle],
  );
  const count = sessions?.length ?? 0;
  const close = () => {
    setOpening(false);
    if (target !== undefined) void navigate({ to: "/sessions", search: {}, replace: true });
  };
  const action = (
    <Button
      kind="primary"
      onPress={() => {
        setOpening(true);
      }}
    >
      <PlusIcon /> Open session
    </Button>
  );
  return (
    <Page title="Sessions" lead={count === 0 ? "Leases that let somebody into something that runs." : `${plural(open, "open session")}, ${count - open} over`} actions={count > 0 ? action : undefined}>
      {count > 0 ? (
        <div className="flex flex-wrap items-center gap-3">
          {count > 3 ? <Filter label="Filter sessions" value={needle} onChange={setNeedle} /> : null}
          <Segments
            label="Which sessions"
            options={[
              { key: "open", label: "Open", count: open },
              { key: "all", label: "All", count },
            ]}
            value={shown}
            onChange={setShown}
          />
        </div>
      ) : null}
      <Panel>
        {sessions === undefined ? (
          isError ? (
            <WorkError error={error} title="Sessions could not be loaded" onRetry={() => void refetch()} />
          ) : (
            <TableSkeleton label="sessions" rows={3} />
          )
        ) : count === 0 ? (
          <EmptyState title="No sessions yet" action={action}>
            A session lets a person or a program into one sandbox or service for a while: its terminal, its files, its browser. The page of a sandbox opens one by itself.
          </EmptyState>
        ) : (
          <DataTable
            label="Sessions"
            rows={rows}
            rowId={(session) => session.metadata.id}
            columns={COLUMNS}
            defaultSort={{ column: "opened", direction: "ascending" }}
            onOpen={(session) => void navigate({ to: "/sessions/$sessionId", params: { sessionId: session.metadata.id } })}
            empty={<p className="px-6 py-8 text-center text-muted">{needle === "" ? "None is open." : `No session matches “${needle}”.`}</p>}
          />
        )}
      </Panel>
      {sessions !== undefined && isError ? <StaleNote what="The list" /> : null}
      <Dialog title="Open session" isOpen={opening} onClose={close} wide>
        <OpenForm
          tenant={tenant}
          wanted={target ?? null}
          onClose={close}
          onOpened={(session) => void navigate({ to: "/sessions/$sessionId", params: { sessionId: session.metadata.id }, search: {} })}
        />
      </Dialog>
    </Page>
  );
}

const TIMES = [
  { key: "900000", label: "15 minutes" },
  { key: "1800000", label: "30 minutes" },
  { key: "3600000", label: "1 hour" },
] as const;

function OpenForm({ tenant, wanted, onClose, onOpened }: { tenant: string; wanted: string | null; onClose: () => void; onOpened: (session: WorkSession) => void }) {
  const client = useQueryClient();
  const { data: sandboxes } = useQuery(queries.sandboxes(tenant));
  const { data: services } = useQuery(queries.services(tenant));
  const all = useMemo(() => choices(sandboxes ?? [], services ?? []), [sandboxes, services]);
  const [key, setKey] = useState<string | null>(wanted);
  const [without, setWithout] = useState<Channel[]>([]);
  const [ttl, setTtl] = useState<(typeof TIMES)[number]["key"]>("900000");
  const chosen = all.find((item) => item.key === key) ?? all[0];
  const channels = (chosen?.channels ?? []).filter((channel) => !without.includes(channel));
  const open = useMutation({
    mutationFn: () => {
      if (chosen === undefined) throw new Error("There is nothing to open a session on.");
      return work.openSession({ tenantId: tenant, target: chosen.target, channels, requestedTtlMs: Number(ttl) });
    },
    onSuccess: (session) => {
      client.setQueryData<WorkSession>(keys.session(session.metadata.id), session);
      void client.invalidateQueries({ queryKey: keys.sessions(tenant) });
      onOpened(session);
    },
  });
  if (sandboxes !== undefined && services !== undefined && chosen === undefined) {
    return (
      <>
        <p>Nothing runs that a session could lead to. Start a sandbox or a service first.</p>
        <DialogActions>
          <Button onPress={onClose}>Close</Button>
        </DialogActions>
      </>
    );
  }
  return (
    <Form
      className="flex flex-col gap-5"
      onSubmit={(event) => {
        event.preventDefault();
        if (channels.length > 0 && !open.isPending) open.mutate();
      }}
    >
      <Select label="Leads to" options={all.map((item) => ({ key: item.key, label: `${item.label}, ${item.hint}` }))} value={chosen?.key ?? ""} onChange={setKey} />
      <CheckboxGroup
        value={channels}
        onChange={(values) => {
          setWithout((chosen?.channels ?? []).filter((channel) => !values.includes(channel)));
        }}
        className="flex flex-col gap-2"
      >
        <Label className="text-sm font-medium">Carries</Label>
        {(chosen?.channels ?? []).map((channel) => (
          <Check key={channel} value={channel} label={CHANNEL_TEXT[channel].label} text={CHANNEL_TEXT[channel].text} />
        ))}
      </CheckboxGroup>
      <Select label="Lasts" options={TIMES} value={ttl} onChange={setTtl} className="max-w-44" />
      {open.isError ? <InlineError error={open.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" type="submit" isPending={open.isPending} pendingLabel="Opening" disabledReason={channels.length === 0 ? "Choose what it carries." : null}>
          Open session
        </Button>
      </DialogActions>
    </Form>
  );
}
